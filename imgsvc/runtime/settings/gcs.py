"""``[gcs]``: the bucket that outputs go to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, field_validator

from imgsvc.runtime.settings.section import Positive, Section


class Gcs(Section):
    """The bucket."""

    bucket: Annotated[str, Field(min_length=3, max_length=222)] = Field(
        "imgsvc", description="The bucket's name."
    )
    project: str | None = Field(None, description="The project in Google Cloud.")
    key_base64: SecretStr | None = Field(
        None, description="A service account's JSON key, in base64."
    )
    credentials_file: Path | None = Field(None, description="The same key as a file.")
    emulator_host: str | None = Field(
        None, description="An emulator to use in place of Google, for trying out."
    )
    public_url: str | None = Field(
        None,
        description="What each `outputUrl` begins with, such as a CDN's address of the bucket.",
    )
    cache_control: str = Field(
        "public, max-age=31536000, immutable", description="The Cache-Control header of objects."
    )
    signed_urls: bool = Field(
        default=False,
        description="Whether `outputUrl` is a V4 signed URL; needs a service account's key.",
    )
    signed_url_ttl_s: Annotated[int, Field(ge=1, le=604_800)] = Field(
        604_800, description="How long it is valid; 7 days is the most."
    )
    threads: Annotated[int, Field(ge=1, le=64)] = Field(8, description="Uploads at once.")
    timeout_s: Positive = Field(60.0, description="For one call.")
    retry_s: Positive = Field(120.0, description="How long the client library repeats a call.")

    @property
    def in_hand(self) -> int:
        """Results that may be on their way; most of the time they wait for the ledger."""
        return max(256, self.threads * 8)

    @field_validator("emulator_host", "project", "key_base64", "credentials_file", mode="before")
    @classmethod
    def _empty_means_unset(cls, value: Any) -> Any:
        # Compose files pass variables through even when they are empty.
        return None if value == "" else value

    @field_validator("emulator_host")
    @classmethod
    def _with_scheme(cls, value: str | None) -> str | None:
        if value is None or value.startswith(("http://", "https://")):
            return value
        return f"http://{value}"
