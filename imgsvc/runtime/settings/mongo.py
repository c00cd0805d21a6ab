"""``[mongo]``: where the ledger is."""

from __future__ import annotations

import contextlib
from typing import Any

from pydantic import Field, SecretStr, field_validator, model_validator

from imgsvc.runtime.settings import mongo_uri
from imgsvc.runtime.settings.section import Count, Positive, Section


class Mongo(Section):
    """The ledger."""

    uri: SecretStr = Field(
        SecretStr("mongodb://127.0.0.1:27017"), description="MongoDB's connection string."
    )
    database: str = Field(
        "imgsvc",
        description="The database. Unless it is set here, the one that the URI names, or else "
        "this.",
    )
    timeout_ms: Count = Field(5000, description="How long an operation may take.")
    intake_s: Positive = Field(
        600.0, description="An upload that is not written by then is given up, and swept."
    )

    @model_validator(mode="before")
    @classmethod
    def _database_of_the_uri(cls, values: Any) -> Any:
        """The database that the URI names holds, unless another is set."""
        if not isinstance(values, dict) or values.get("database") is not None:
            return values
        with contextlib.suppress(ValueError):  # the validator of `uri` reports it
            if named := mongo_uri.database_of(_text(values.get("uri"))):
                return {**values, "database": named}
        return values

    @field_validator("uri")
    @classmethod
    def _has_the_form(cls, value: SecretStr) -> SecretStr:
        uri = _text(value)
        mongo_uri.database_of(uri)
        return SecretStr(uri)

    @field_validator("database")
    @classmethod
    def _can_be_one(cls, value: str) -> str:
        return mongo_uri.check_database(value)


def _text(value: object) -> str:
    """The text of a secret, without the blanks around it that a copy brings along."""
    return str(value.get_secret_value() if isinstance(value, SecretStr) else value or "").strip()
