"""Texts as they may be logged: without secrets, and no longer than somebody reads.

The libraries that raise errors write their texts, and put into them whatever they were
given: the address with its signature, the command with its password, the value that was wrong. So
whoever makes a text of an error does it here.
"""

from __future__ import annotations

import re
import traceback

_ERROR_CHARS = 500
_MESSAGE_CHARS = 2_000
_TRACEBACK_CHARS = 20_000
_CUT = " [...]"

# With each goes what a text must contain for it to match: searching costs as much as all the rest
# of writing a line.
_Rule = tuple[str, re.Pattern[str], str]

# What is cut from every line. In one of JSON a quote or backslash ends a URL. The query of a URL may
# hold a signature or a token.
_SECRETS: tuple[_Rule, ...] = (
    (
        "://",
        re.compile(r"([a-z][a-z0-9+.-]{1,20}://[^\s?#\"\\]*)\?[^\s\"\\]*", re.IGNORECASE),
        r"\1",
    ),
    ("://", re.compile(r"([a-z][a-z0-9+.-]{1,20}://)[^\s/@\"\\]+@", re.IGNORECASE), r"\1***@"),
    (" ", re.compile(r"(bearer|basic) +[\w.~+/=-]{16,}", re.IGNORECASE), r"\1 ***"),
    ("_", re.compile(r"(isk_[0-9a-f]+_|whsec_)[\w+/=-]+"), r"\1***"),
    ("eyJ", re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*"), "***"),  # a JSON Web Token
    ("ya29.", re.compile(r"ya29\.[\w.~+/=-]+"), "***"),  # an access token of Google's
)

_NAMES = (
    r"upload_id|x-(?:goog|amz)-[a-z-]+|sig|signature|credential|assertion|(?:[a-z]+[_-])?token|"
    r"passw(?:or)?d|pwd|(?:[a-z]+[_-])?secret|api[_-]?key|private[_-]key|(?:proxy-)?authorization"
)

# What is cut from texts of libraries too. They may hold more, and there are few of them.
_IN_ERRORS: tuple[_Rule, ...] = (
    # A password with a slash or an at sign in it: all up to the last at sign.
    ("@", re.compile(r"((?!https?:)\b[a-z][a-z0-9+.-]{1,20}://)\S*@", re.IGNORECASE), r"\1***@"),
    ("@", re.compile(r"(https?://)(?![^\s/:@]*(?::\d+)?/)\S*@", re.IGNORECASE), r"\1***@"),
    # urllib3 names an address without its host.
    ("?", re.compile(r"(?<=[^\s?])\?[^\s\"\\]+"), ""),
    ("", re.compile(r"((?:set-)?cookie['\"]?[:=]).*", re.IGNORECASE), r"\1 ***"),
    (
        "",
        re.compile(
            rf"((?:(?<![a-z0-9])|(?<=%3F)|(?<=%26))(?:{_NAMES})['\"]?\s*(?:=|:|%3D)\s*['\"(]?(?:(?:bearer|basic)\s+)?)"
            r"[^\s'\"&,;)}\]]+",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
    ("PRIVATE KEY", re.compile(r"-----BEGIN.*?(?:-----END[^-]*-----|\Z)", re.DOTALL), "***"),
    # What the other side sent that was no HTTP, or could not be decoded.
    ("b'", re.compile(r"\bb'(?:[^'\\]|\\.)*(?:'|\Z)"), "b'***'"),
    ('b"', re.compile(r"\bb\"(?:[^\"\\]|\\.)*(?:\"|\Z)"), "b'***'"),
    # Redis repeats what it was sent, and its client the whole command.
    ("args beginning", re.compile(r"(with args beginning with:).*", re.DOTALL), r"\1 ***"),
    ("of pipeline", re.compile(r"(Command # \d+) \(.*\) (of pipeline)", re.DOTALL), r"\1 \2"),
    # MongoDB's client repeats what was to be written.
    ("'op': ", re.compile(r"('op': ).*", re.DOTALL), r"\1***"),
    ("nvalid document", re.compile(r"([Ii]nvalid document).*", re.DOTALL), r"\1 ***"),
    ("cannot encode", re.compile(r"(cannot encode object:).*(, of type)", re.DOTALL), r"\1 ***\2"),
    # Python repeats what it cannot read.
    ("could not convert", re.compile(r"(could not convert string to \w+:).*"), r"\1 ***"),
    ("invalid literal", re.compile(r"(invalid literal for \w+\(\) with base \d+:).*"), r"\1 ***"),
    # Pydantic repeats what was wrong.
    ("input_value", re.compile(r"(input_value=).*?(, input_type|$)", re.MULTILINE), r"\1***\2"),
)


def redacted(text: str) -> str:
    """A line of ours without secrets."""
    return _without(_SECRETS, text)


def of_library(text: str, most: int = _MESSAGE_CHARS) -> str:
    """A text that a library wrote, without secrets.

    Args:
        text: what it wrote.
        most: how many characters are kept.
    """
    # First the length: what can be searched at all is searched in no time. The last word goes with
    # what is cut off, for half a secret may not look like one.
    if len(text) > most:
        text = text[:most].rpartition(" ")[0] + _CUT
    return _without(_SECRETS, _without(_IN_ERRORS, text))


def of_error(error: BaseException | None) -> str | None:
    """An error in one short text: its class, and what it says; None if there is none."""
    if error is None:
        return None
    return of_library(f"{type(error).__name__}: {error}", _ERROR_CHARS)


def of_traceback(error: BaseException) -> str:
    """An error with its traceback, the end of which is kept if it is too long."""
    lines = traceback.format_exception(error)
    cleaned = [of_library(line) for line in lines]
    text = "".join(line if line.endswith("\n") else f"{line}\n" for line in cleaned).rstrip("\n")
    if len(text) <= _TRACEBACK_CHARS:
        return text
    return _CUT.strip() + text[-_TRACEBACK_CHARS:]


def _without(rules: tuple[_Rule, ...], text: str) -> str:
    for needed, pattern, instead in rules:
        if needed in text:
            text = pattern.sub(instead, text)
    return text
