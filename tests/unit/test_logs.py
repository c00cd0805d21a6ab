"""Logs: one line for each record, ours and everybody's, and no secret that a URL carries."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
import structlog
from aiohttp.http_exceptions import BadStatusLine
from yarl import URL

from imgsvc.runtime import logs
from imgsvc.runtime.settings import Log

SECRET = "s3cr3t"
SIGNED = f"https://example.com/a/b.jpg?sig={SECRET}&x=1"


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root, access = logging.getLogger(), logging.getLogger("aiohttp.access")
    handlers, level, disabled = root.handlers[:], root.level, access.disabled
    config = structlog.get_config()
    yield
    root.handlers[:], access.disabled = handlers, disabled
    root.setLevel(level)
    structlog.configure(**config)


def configured(**settings: Any) -> StringIO:
    """Where records go from now on."""
    out = StringIO()
    with redirect_stdout(out):
        logs.configure(Log(**settings))
    return out


@pytest.fixture
def records(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    """What was logged, parsed; the logging system may have had nothing to complain about."""
    out = configured(format="json")

    def read() -> list[dict[str, Any]]:
        assert capsys.readouterr().err == ""
        return [json.loads(line) for line in out.getvalue().splitlines()]

    return read


@pytest.fixture
def as_text() -> Callable[[], str]:
    return configured(format="console").getvalue


Records = Callable[[], list[dict[str, Any]]]


def test_a_record_is_one_line_of_json_with_time_level_and_logger(records: Records) -> None:
    logs.get("mine").info("image.uploaded", ms=12, name="line\nbreak")
    (record,) = records()
    at = datetime.fromisoformat(record.pop("timestamp"))
    assert abs(at - datetime.now(UTC)) < timedelta(seconds=10)
    assert record == {
        "event": "image.uploaded",
        "level": "info",
        "logger": "mine",
        "ms": 12,
        "name": "line\nbreak",
    }


def test_a_librarys_record_looks_like_ours(records: Records) -> None:
    logging.getLogger("library").warning("%s of %d", "one", 2, extra={"attempt": 3})
    (record,) = records()
    record.pop("timestamp")
    assert record == {
        "event": "one of 2",
        "level": "warning",
        "logger": "library",
        "attempt": 3,
    }


def test_what_is_bound_is_in_every_record_ours_or_not(records: Records) -> None:
    with structlog.contextvars.bound_contextvars(request_id="r"):
        logs.get("mine").info("ours")
        logging.getLogger("library").info("theirs")
    assert [record["request_id"] for record in records()] == ["r", "r"]


def test_the_level_holds_for_all() -> None:
    out = configured(format="json", level="warning")
    for logger in (logs.get("level.mine"), logging.getLogger("level.library")):
        logger.debug("no")
        logger.info("no")
        logger.warning("yes")
        logger.error("yes")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["yes"] * 4


def test_libraries_tell_no_details_even_where_we_do() -> None:
    """At this level they tell whole commands: documents with secrets, addresses with tokens."""
    out = configured(format="json", level="debug")
    logs.get("details.mine").debug("ours")
    for name in ("pymongo.command", "urllib3.connectionpool", "details.library"):
        logging.getLogger(name).debug(SECRET)
        logging.getLogger(name).info("theirs")
    told = [json.loads(line)["event"] for line in out.getvalue().splitlines()]
    assert told == ["ours", *["theirs"] * 3]


def test_the_access_log_is_silent(records: Records) -> None:
    logging.getLogger("aiohttp.access").info("GET /")
    assert records() == []


def test_configuring_again_does_not_repeat_lines(records: Records) -> None:
    again = configured(format="json")
    logs.get("again").info("once")
    assert records() == []
    assert len(again.getvalue().splitlines()) == 1


def crash(text: str = f"cannot fetch {SIGNED}") -> None:
    raise ValueError(text)


def test_an_exception_is_told_with_its_traceback(records: Records) -> None:
    for logger in (logs.get("crash.mine"), logging.getLogger("crash.library")):
        try:
            crash()
        except ValueError:
            logger.exception("failed")
    for record in records():
        assert "Traceback (most recent call last):" in record["exception"]
        assert "in crash" in record["exception"]
        assert "ValueError: cannot fetch https://example.com/a/b.jpg" in record["exception"]
        assert SECRET not in record["exception"]


VALUES = {
    "a URL": SIGNED,
    "within text": f"fetching <{SIGNED}> and ({SIGNED}), then {SIGNED}",
    "with a fragment": f"{SIGNED}#{SECRET}",
    "in capitals": f"HTTPS://EXAMPLE.com/?sig={SECRET}",
    "with an apostrophe in its path": f"https://example.com/it's.jpg?sig={SECRET}",
    "with an apostrophe in its query": f"https://example.com/?a='b'&sig={SECRET}",
    "as an object": URL(SIGNED),
    "in a list": [SIGNED],
    "in a dict": {"url": SIGNED},
    "in an error": ValueError(SIGNED),
    "in the text of an error": repr(ValueError(SIGNED)),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_queries_are_cut_off(records: Records, value: Any) -> None:
    logs.get("mine").info("ours", value=value)
    logs.get("mine").info(f"event {value}")
    logging.getLogger("library").info("theirs %s", value)
    logging.getLogger("library").info("theirs", extra={"value": value})
    lines = [json.dumps(record) for record in records()]
    assert len(lines) == 4
    assert [line for line in lines if SECRET in line] == []
    assert all("example.com" in line.lower() for line in lines), "and nothing but the query"


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_queries_are_cut_off_in_a_terminal_too(as_text: Callable[[], str], value: Any) -> None:
    logs.get("mine").info("ours", value=value)
    logging.getLogger("library").info("theirs %s", value)
    assert SECRET not in as_text()


def test_queries_are_cut_off_tracebacks_in_a_terminal(as_text: Callable[[], str]) -> None:
    try:
        crash()
    except ValueError:
        logs.get("mine").exception("failed")
    text = as_text()
    assert "ValueError: cannot fetch" in text
    assert SECRET not in text


SECRETS = {
    "a password in a URL": ("mongodb+srv://user:s3cr3t@db/?x", "mongodb+srv://***@db/"),
    "a name in a URL": ("https://s3cr3t@example.com/a", "https://***@example.com/a"),
    "a bearer token": (f"Authorization: Bearer {SECRET * 4}", "Authorization: Bearer ***"),
    "basic credentials": (f"basic {SECRET * 4}==", "basic ***"),
    "an API key": (f"isk_0123456789abcdef_{SECRET}-{SECRET}", "isk_0123456789abcdef_***"),
    "a webhook secret": (f"whsec_{SECRET}+/=", "whsec_***"),
    "a JSON Web Token": (f"eyJ0{SECRET}.eyJ1{SECRET}.{SECRET}", "***"),
}


@pytest.mark.parametrize(("value", "shown"), SECRETS.values(), ids=SECRETS)
def test_secrets_are_cut_out(value: str, shown: str) -> None:
    for format_ in ("json", "console"):
        out = configured(format=format_)
        logs.get(f"secrets.{format_}").info("ours", value=[value], text=value)
        logging.getLogger("library").info("theirs %s", value)
        assert SECRET not in out.getvalue()
        assert out.getvalue().count(shown) == 3


COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# What begins a line, erases one, colours, hides, or turns what follows around.
SLY = "\n\r\x1b[2K\x1b[31m\x00\x08\x7f\x85\x9b\u2028\u2029\u202e\u2066\u200b\ufeff\U000e0041"


@pytest.mark.parametrize("format_", ["json", "console"])
def test_no_input_forges_a_line(format_: str) -> None:
    out = configured(format=format_)
    for value in (f"x{SLY}2026-01-01 [info] forged", [f"x{SLY}forged"], {f"{SLY}": SLY}):
        logs.get(f"sly.{format_}").info("ours", value=value)
        logs.get(f"sly.{format_}").info(f"ours {value}")
        logging.getLogger("library").info("theirs %s", value)
        logging.getLogger("library").info("theirs", extra={"value": value})
    lines = COLOUR.sub("", out.getvalue()).split("\n")
    assert len(lines) == 13
    assert lines.pop() == ""
    assert all(line.isprintable() for line in lines)
    if format_ == "json":
        assert json.loads(lines[0])["value"] == f"x{SLY}2026-01-01 [info] forged"


def test_an_error_forges_no_line_of_its_traceback(as_text: Callable[[], str]) -> None:
    try:
        crash(f"x{SLY}\n2026-01-01T00:00:00Z [info     ] forged")
    except ValueError:
        logs.get("mine").exception("failed")
    _, *traceback = COLOUR.sub("", as_text()).split("\n")
    assert "forged" in traceback[-2]
    assert all(not line or line.startswith("  ") for line in traceback)
    assert all(line.isprintable() for line in traceback)


def test_what_is_no_http_is_told_without_its_bytes(records: Records) -> None:
    error = BadStatusLine(f"GET /?token={SECRET}")
    logging.getLogger("aiohttp.server").error(
        "Error handling request from %s", "203.0.113.7", exc_info=error
    )
    (record,) = records()
    assert (record["event"], record["level"]) == ("http.malformed", "info")
    assert record["what"] == "BadStatusLine"
    assert SECRET not in str(record)


def test_what_is_no_query_stays(records: Records) -> None:
    logs.get("mine").info("really? yes", path="/a?b", url="https://example.com/a.jpg")
    (record,) = records()
    assert (record["event"], record["path"]) == ("really? yes", "/a?b")
    assert record["url"] == "https://example.com/a.jpg"


@pytest.mark.parametrize("value", ["\udcff", 2**70, {1: 2}, b"bytes", object, {"a"}, float("nan")])
def test_no_value_is_too_odd_to_be_logged(records: Records, value: Any) -> None:
    logs.get("mine").info("odd", value=value)
    assert [record["event"] for record in records()] == ["odd"]


def test_a_terminal_gets_text(as_text: Callable[[], str]) -> None:
    logs.get("mine").info("image.uploaded", ms=12)
    text = as_text()
    assert "image.uploaded" in text
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)


def test_without_a_terminal_the_format_is_json() -> None:
    out = configured(format="auto")
    logs.get("auto").info("event")
    assert json.loads(out.getvalue())["event"] == "event"
