"""The client of MongoDB, and the check of its connection string."""

from __future__ import annotations

import warnings
from typing import Any
from urllib.parse import unquote_plus

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import PyMongoError

from imgsvc.runtime import logs
from imgsvc.runtime.settings import Mongo, SettingsError, name_of

# Warnings of the driver that do no harm. All others are about values that it would ignore, and
# "tls=yes" must not mean a connection in clear.
_HARMLESS = ("Unknown option", "Wire protocol compression", "Duplicate URI option")

_log = logs.get("ledger")


def connect(settings: Mongo) -> Any:
    """A client that connects when it is used first.

    Raises:
        SettingsError: the connection string cannot be used; names no secret of it.
    """
    uri = settings.uri.get_secret_value()
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            client: Any = AsyncIOMotorClient(
                uri,
                serverSelectionTimeoutMS=settings.timeout_ms,
                connectTimeoutMS=settings.timeout_ms,
                socketTimeoutMS=settings.timeout_ms * 4,
                # A 202 promises that the request survives: ask for that, whatever the string says.
                w="majority",
                journal=True,
                readConcernLevel="local",
                # What was written has to be seen by the next question.
                readPreference="primary",
                tz_aware=True,
                appname="imgsvc",
            )
        for warning in warned:
            _judge(str(warning.message), warning.category)
    except (PyMongoError, ValueError, TypeError, OSError) as error:
        reason = _without_secrets(str(error), uri)
        raise SettingsError(f"{name_of('mongo', 'uri')} = ***: {reason}") from None
    return client


def _judge(warning: str, category: type[Warning]) -> None:
    if issubclass(category, DeprecationWarning):
        return
    if not warning.startswith(_HARMLESS):
        raise ValueError(warning)
    _log.warning("mongo.uri", reason=warning)


def _without_secrets(text: str, uri: str) -> str:
    """What the driver says, on one line and without what is secret in the string."""
    server, _, options = uri.partition("://")[2].partition("?")
    user, _, _ = server.partition("/")[0].rpartition("@")
    secrets = [user.partition(":")[2]]
    for option in options.replace(";", "&").split("&"):
        name, _, value = option.partition("=")
        if any(word in name.lower() for word in ("password", "properties")):
            secrets.append(value)
    for secret in secrets:
        for written in (secret, unquote_plus(secret)):
            if written:
                text = text.replace(written, "***")
    return " ".join(text.split())
