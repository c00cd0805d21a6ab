"""One logging setup for our own records and everybody else's.

Every record, ours or a library's, passes the same processors and leaves as one line on standard
output: JSON for machines, coloured text for a terminal.
"""

from __future__ import annotations

import json
import logging
import sys
from textwrap import indent
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from imgsvc.runtime import redaction
from imgsvc.runtime.settings import Log

_OURS = "imgsvc"


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
        _without_prefix,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
    ]
    last: list[Processor] = (
        [_on_one_line, structlog.dev.ConsoleRenderer(exception_formatter=_indented_traceback)]
        if as_text
        else [
            structlog.processors.ExceptionRenderer(_traceback),
            structlog.processors.JSONRenderer(serializer=_to_json),
            _visible,
        ]
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.PositionalArgumentsFormatter(),
                *shared,
                _without_malformed_bytes,
                _with_clean_event,
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *last,
                _without_secrets,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries log whole commands at "debug", with everything secret that is in them.
    root.setLevel(max(logging.INFO, logging.getLevelNamesMapping()[log.level.upper()]))
    logging.getLogger(_OURS).setLevel(log.level.upper())
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
    return structlog.stdlib.get_logger(f"{_OURS}.{name}")


def _without_prefix(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["logger"] = event["logger"].removeprefix(f"{_OURS}.")
    return event


def _without_malformed_bytes(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """What is no HTTP is no error of ours, and its bytes may be anything, a token too."""
    error = (event.get("exc_info") or (None, None))[1]
    if type(error).__module__ != "aiohttp.http_exceptions":
        return event
    kept = {name: event[name] for name in event if name not in {"exc_info", "event", "level"}}
    return {**kept, "event": "http.malformed", "level": "info", "what": type(error).__name__}


def _with_clean_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Libraries put the texts of errors into their messages."""
    event["event"] = redaction.of_library(str(event["event"]))
    return event


def _without_secrets(_logger: WrappedLogger, _method: str, line: Any) -> str:
    """Cut from the finished line, where no list, object or traceback can hide one."""
    return redaction.redacted(str(line))


def _traceback(exc_info: ExcInfo) -> str:
    return redaction.of_traceback(exc_info[1])


def _visible(_logger: WrappedLogger, _method: str, text: Any) -> str:
    """The text with what cannot be seen escaped: it could turn a line around, or begin another."""
    if str(text).isprintable():
        return str(text)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in str(text))


def _on_one_line(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = _visible(logger, method, value)
    return event


def _indented_traceback(out: TextIO, exc_info: ExcInfo) -> None:
    """A traceback in which no line of an error's text looks like a line of the log."""
    lines = (_visible(None, "", line) for line in _traceback(exc_info).splitlines())
    out.write(indent("\n".join(lines), "  "))


def _to_json(event: EventDict, **_: object) -> str:
    try:
        return orjson.dumps(event, default=str).decode()
    except TypeError:  # half a surrogate pair, an integer beyond 64 bits, a key that is no text
        return json.dumps({str(key): str(value) for key, value in event.items()})
