"""Errors of MongoDB: those that last until somebody changes something, and those that pass.

Only the errors listed here last: wrong credentials, missing rights, another shape of the database.
Everything else passes: a server that is away, stepping down, full or busy is asked again. The codes
are those of
https://www.mongodb.com/docs/manual/reference/error-codes/.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    InvalidName,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.runtime.settings import name_of

_LOGIN = (
    "MongoDB does not accept this user and password; users are looked for in the database that "
    "the URI names, unless it says authSource"
)
_LASTING: Mapping[int, tuple[str, str]] = {
    11: ("UserNotFound", _LOGIN),
    13: ("Unauthorized", "the user needs the role readWrite on the database"),
    18: ("AuthenticationFailed", _LOGIN),
    59: ("CommandNotFound", "this server is too old, or no MongoDB"),
    67: (
        "CannotCreateIndex",
        "a collection has as many indexes as it can have, or is of another kind",
    ),
    73: ("InvalidNamespace", "MongoDB does not take the name of the database"),
    115: ("CommandNotSupported", "this server is too old, or no MongoDB"),
    121: ("DocumentValidationFailure", "a collection has a validator, which ours must not have"),
    166: ("CommandNotSupportedOnView", "a view stands in the place of a collection"),
    323: ("APIStrictError", "the URI asks for a stable API without this command"),
}
_ATLAS = 8000  # one code for many things: a login, a right, a quota
_UNAUTHORIZED, _AUTHENTICATION_FAILED = 13, 18

_NOT_TRUSTED = (
    "MongoDB shows a certificate that is not trusted; tlsCAFile in the URI says whom to trust"
)

_NO_USER = "MongoDB asks for a user and a password, and the URI names none"

# MongoDB repeats a refused command as a whole, with its secrets: keep its name and collection.
_COMMAND = re.compile(
    r'to execute command \{ (\w+): "([\w.-]+)"|action: (\w+)|command (\w+) requires authentication'
)
_CONFLICTS: Mapping[int, str] = {85: "IndexOptionsConflict", 86: "IndexKeySpecsConflict"}
_INDEX = re.compile(r'with a different name: ([^\s,]+)|name: "([^"]+)"')
_CODE = re.compile(r"'code': (\d+)")


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn errors of the driver into ServiceError(UNAVAILABLE), for the rest of the service."""
    try:
        yield
    except PyMongoError as error:
        translation = service_error(error)
        # The driver's error may repeat a refused command word by word, secrets included.
        raise translation from None if translation.remedy else error


def service_error(error: PyMongoError) -> ServiceError:
    """The error to the rest of the service; ``remedy`` says what to change if it is lasting."""
    remedy = lasting(error)
    if remedy is None:
        return ServiceError(ErrorCode.UNAVAILABLE, retry_after_s=2)
    return ServiceError(
        ErrorCode.UNAVAILABLE,
        "The database refuses this service; its operator has to mend that.",
        retry_after_s=30,
        remedy=remedy,
    )


def lasting(error: PyMongoError) -> str | None:
    """What an operator has to change, in one line; None if it passes by itself."""
    if isinstance(error, ConfigurationError | InvalidName):
        # A name that DNS does not know at present comes as one of these, with its cause.
        return f"{_setting()}: {error}" if error.__cause__ is None else None
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return f"{_setting()}: {_NOT_TRUSTED}"
    code = _code(error)
    if code is None or code not in _LASTING:
        return None
    name, remedy = _LASTING[code]
    refused = _COMMAND.search(str(error))
    if refused and "requires authentication" in refused[0]:
        remedy = _NO_USER
    what = f" for {' on '.join(filter(None, refused.groups()))}" if refused else ""
    return f"{_setting()}: {remedy} ({code} {name}{what})"


def index_conflict(error: OperationFailure, collection: str) -> str | None:
    """What to do about an index that is in the way of ours; None if none is.

    Args:
        error: what creating ours came to.
        collection: which has to have it.
    """
    if error.code is None or error.code not in _CONFLICTS:
        return None
    found = _INDEX.search(str(error))
    index = next(filter(None, found.groups()), "?") if found else "?"
    return (
        f"MongoDB's collection {collection} has an index of its own, {index}, where the ledger needs "
        f"another; drop it and start again ({error.code} {_CONFLICTS[error.code]})"
    )


def _setting() -> str:
    return name_of("mongo", "uri")


def _code(error: PyMongoError) -> int | None:
    if isinstance(error, BulkWriteError):
        refused: list[dict[str, Any]] = (error.details or {}).get("writeErrors", [])
        return refused[0].get("code") if refused else None
    if isinstance(error, OperationFailure):
        if error.code == _ATLAS:
            return _code_at_atlas(str(error))
        return error.code
    if isinstance(error, ServerSelectionTimeoutError):
        # After a failed login the driver does not try that server again: the code is in the text.
        codes = {int(code) for code in _CODE.findall(str(error))}
        return _AUTHENTICATION_FAILED if _AUTHENTICATION_FAILED in codes else None
    return None


def _code_at_atlas(text: str) -> int | None:
    if "not allowed to do action" in text:
        return _UNAUTHORIZED
    return _AUTHENTICATION_FAILED if "auth" in text else None
