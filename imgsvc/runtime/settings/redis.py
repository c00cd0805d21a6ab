"""``[redis]``: where the mailboxes are, and how work is dealt through them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, field_validator, model_validator

from imgsvc.runtime.settings import redis_url
from imgsvc.runtime.settings.section import Count, Port, Positive, Section


class Redis(Section):
    """The mailboxes."""

    url: SecretStr | None = Field(
        None,
        description="Where Redis is, as a URL (`docs/redis.md`). It wins over `host` to `tls`.",
    )
    host: str = Field("127.0.0.1", description="Its host.")
    port: Port = Field(redis_url.PORT, description="Its port.")
    db: Annotated[int, Field(ge=0)] = Field(0, description="The number of its database.")
    username: str | None = Field(None, description="The user to log in as.")
    password: SecretStr | None = Field(None, description="That user's password.")
    tls: bool = Field(default=False, description="Whether connections are encrypted.")
    ca_file: Path | None = Field(
        None,
        description="A PEM file with the authorities to trust; unset, those of the system.",
    )
    sentinel_username: str | None = Field(None, description="The user at the Sentinels.")
    sentinel_password: SecretStr | None = Field(
        None, description="The password at the Sentinels, if they ask for one."
    )
    window: Count = Field(
        32,
        description="Messages dealt ahead for each live replica; a quarter more are images of "
        "small requests.",
    )
    heartbeat_s: Positive = Field(
        20.0, description="The work of a replica that is silent for so long is taken over."
    )
    reconcile_s: Positive = Field(15.0, description="How often lost work is looked for.")
    lease_s: Positive = Field(
        900.0, description="Work in flight for longer than this is taken for lost and dealt again."
    )
    max_deliveries: Count = Field(
        5, description="A message that failed so often goes to the dead letters."
    )

    @field_validator(
        "url", "username", "password", "ca_file", "sentinel_username", "sentinel_password",
        mode="before",
    )  # fmt: skip
    @classmethod
    def _empty_means_unset(cls, value: Any) -> Any:
        return value or None

    @field_validator("host")
    @classmethod
    def _a_host_alone(cls, value: str) -> str:
        return redis_url.check_host(value)

    @field_validator("url")
    @classmethod
    def _readable(cls, value: SecretStr | None) -> SecretStr | None:
        if value:
            redis_url.parse(value.get_secret_value())
        return value

    @field_validator("ca_file")
    @classmethod
    def _exists(cls, value: Path | None) -> Path | None:
        if value and not value.is_file():
            raise ValueError("there is no such file")
        return value

    @model_validator(mode="after")
    def _encrypted_if_asked(self) -> Redis:
        where = self.where
        if self.tls and not where.tls and where.path is None:
            raise ValueError("tls is true, but url is not encrypted: begin it with rediss")
        return self

    @property
    def where(self) -> redis_url.RedisUrl:
        """Where Redis is and who logs in: as the URL says, else as the single settings say."""
        if self.url is None:
            found = redis_url.RedisUrl(
                addresses=(redis_url.Address(self.host, self.port),), tls=self.tls
            )
        else:
            found = redis_url.parse(self.url.get_secret_value())
        password = self.password.get_secret_value() if self.password else None
        return dataclasses.replace(
            found,
            username=found.username or self.username,
            password=found.password or password,
            db=self.db if found.db is None else found.db,
        )

    @property
    def priority_window(self) -> int:
        """Images of small requests which a replica fetches beside all others."""
        return max(1, self.window // 4)
