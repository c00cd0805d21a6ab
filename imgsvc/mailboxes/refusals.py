"""Why Redis refuses a command: for the moment, because of how it is set up, or by our mistake.

Every release of Redis adds refusals that pass by themselves. So the lists here name the other two
kinds, and a refusal that they do not name is taken to pass. The texts are those of Redis 6.2 to 8
and of Valkey (``server.c``, ``scripting.c`` and ``script.c`` of their sources).
"""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import Iterator

from redis.exceptions import RedisError, ResponseError

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.runtime import redaction

# Redis 6.2 wraps the refusal of a command in a script; later versions only add where it was.
_WRAPPING = re.compile(r"ERR Error running script \(call to \w+\): ")
_PLACE = re.compile(r"@user_script: ?\d+: ")
_CODE = re.compile(r"[A-Z][A-Z0-9]+(?= |$)")
_MOST_WORDS = 200

_MISTAKES = re.compile(
    r"WRONGTYPE|(ERR )?(wrong number of arg|syntax error|value is not|invalid stream id"
    r"|unknown subcommand|number of keys can|error compiling script|user_script:)",
    re.IGNORECASE,
)

# How Redis is set up: nothing changes until an operator does something.
_SETUP = (
    (re.compile(r"NOAUTH"), "asks for a password, which REDIS_URL or [redis] password says"),
    (re.compile(r"WRONGPASS|ERR (invalid password|AUTH )"), "refuses our user name or password"),
    (
        re.compile(r"NOPERM|ERR ACL failure|the user executing the script", re.IGNORECASE),
        "does not allow our user what docs/redis.md lists",
    ),
    (
        re.compile(r"MOVED|ASK |CROSSSLOT|ERR SELECT is not allowed in cluster"),
        "is a node of a cluster, which is not supported: use a single Redis, or Sentinels",
    ),
    (
        re.compile(r"ERR (DB index is out of range|invalid DB index)", re.IGNORECASE),
        "has no database of that number: see REDIS_URL and [redis] db",
    ),
    (
        re.compile(r"ERR unknown (redis )?command", re.IGNORECASE),
        "lacks a command that docs/redis.md lists",
    ),
    (re.compile(r"DENIED"), "lets in this machine only (protected mode)"),
)


def unusable(remedy: str) -> ServiceError:
    """The error that this Redis is not set up as the service needs it, until somebody changes it.

    Args:
        remedy: what to change, in one sentence.
    """
    return ServiceError(ErrorCode.UNAVAILABLE, remedy, retry_after_s=2, remedy=remedy)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn whatever keeps Redis from working into one error for the rest of the service.

    Raises:
        ServiceError: UNAVAILABLE; with a ``remedy`` if it will not pass by itself.
        ResponseError: a mistake of ours.
    """
    try:
        yield
    # RuntimeError is what uvloop raises for a write to a connection that was just closed.
    except (RedisError, OSError, RuntimeError) as error:
        words = words_of(error)
        if isinstance(error, ResponseError) and _MISTAKES.match(words):
            raise
        if remedy := _remedy(error, words):
            raise unusable(f"Redis {remedy} ({_shown(words)}).") from error
        detail = f"Redis refuses at the moment: {_shown(words)}" if _is_answer(error) else None
        raise ServiceError(ErrorCode.UNAVAILABLE, detail, retry_after_s=2) from error


def code_of(error: Exception) -> str:
    """The word in capitals that a refusal begins with; empty if the error is no refusal."""
    found = _CODE.match(words_of(error)) if isinstance(error, RedisError) else None
    return found[0] if found else ""


def words_of(error: Exception) -> str:
    """What Redis answered, as it would word it outside of a script."""
    text = str(error)
    code = getattr(error, "status_code", None)  # the client's own classes come without it
    if code and not text.startswith(code):
        text = f"{code} {text}"
    text, wrapped = _WRAPPING.subn("", text)
    if wrapped:
        text = _PLACE.sub("", text).removeprefix("-").removeprefix("ERR ")
    return " ".join(text.split())


def _is_answer(error: Exception) -> bool:
    return isinstance(error, ResponseError) or bool(code_of(error))


def _shown(words: str) -> str:
    return redaction.of_library(words, _MOST_WORDS).rstrip(" .")


def _remedy(error: Exception, words: str) -> str | None:
    if isinstance(error, ResponseError | RedisError):
        for refusal, remedy in _SETUP:
            if refusal.match(words):
                return remedy
    reason: BaseException | None = error
    while reason is not None:
        if isinstance(reason, ssl.SSLCertVerificationError):
            return "shows a certificate that is not trusted: see [redis] ca_file"
        reason = reason.__cause__ or reason.__context__
    return None
