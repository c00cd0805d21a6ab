"""One logging setup for our own records and everybody else's.

Every record, ours or a library's, passes the same processors and leaves as one line on standard
output: JSON for machines, coloured text for a terminal.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from imgsvc.settings import Log

# The query of a URL may hold a signature or a token: it never reaches a log. Cut from the finished
# line, where no list, object or traceback can hide one; there a quote or backslash ends a URL.
_QUERY = re.compile(r"(https?://[^\s?#\"\\]*)\?[^\s\"\\]*", re.IGNORECASE)


def configure(log: Log) -> None:
    """Send all records of this process through one pipeline.

    Args:
        log: level and format; the format ``auto`` is text on a terminal and JSON elsewhere.
    """
    as_text = log.format == "console" or (log.format == "auto" and sys.stdout.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
    ]
    last: list[Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if as_text
        else [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_to_json),
        ]
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.PositionalArgumentsFormatter(), *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *last,
                _without_queries,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(log.level.upper())
    # aiohttp's access log repeats the canonical line that our middleware writes.
    logging.getLogger("aiohttp.access").disabled = True
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def get(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of one module or actor, by its ``name``."""
    return structlog.stdlib.get_logger(name)


def _without_queries(_logger: WrappedLogger, _method: str, line: Any) -> str:
    return _QUERY.sub(r"\1", str(line))


def _to_json(event: EventDict, **_: object) -> str:
    try:
        return orjson.dumps(event, default=str).decode()
    except TypeError:  # half a surrogate pair, an integer beyond 64 bits, a key that is no text
        return json.dumps({str(key): str(value) for key, value in event.items()})
