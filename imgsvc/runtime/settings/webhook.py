"""``[webhook]``: how the end of a request is announced, and what a secret to sign with looks like."""

from __future__ import annotations

import base64
from typing import Annotated

from pydantic import Field, SecretStr, field_validator

from imgsvc.runtime.settings.section import Count, Positive, Section

SECRET_PREFIX = "whsec_"  # noqa: S105 - what a secret begins with
_MIN_KEY_BYTES, _MAX_KEY_BYTES = 24, 64  # the bounds of the Standard Webhooks specification

Wait = Annotated[float, Field(gt=0, le=7 * 24 * 3600)]


class Webhook(Section):
    """How the end of a request is announced."""

    secrets: tuple[SecretStr, ...] = Field(
        (),
        description="`whsec_...`, the newest first. Each of them signs, which makes rotation "
        "without a gap possible.",
    )
    attempts: Count = Field(5, description="Attempts to deliver.")
    delay_ms: Count = Field(1000, description="Before the second attempt; then it doubles.")
    schedule: Annotated[tuple[Wait, ...], Field(max_length=99)] = Field(
        (),
        description="In place of these two, each wait in seconds. For example, 27 h in all: "
        "`[5, 300, 1800, 7200, 18000, 36000, 36000]`.",
    )
    jitter: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.2, description="Waits are longer or shorter by up to this share."
    )
    timeout_s: Positive = Field(15.0, description="For one attempt.")
    concurrency: Count = Field(
        64,
        description="Attempts at once, three quarters of them for one tenant or one address.",
    )
    host_concurrency: Count = Field(
        4, description="Attempts at once to one host; one that hangs does not delay the others."
    )

    @field_validator("secrets")
    @classmethod
    def _usable(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        return tuple(SecretStr(check_webhook_secret(s.get_secret_value())) for s in value)


def check_webhook_secret(text: str) -> str:
    """The secret without blanks around it, if it is one that every receiver can use.

    Checked here since the signing package skips characters that are not base64, and so would
    sign with another key than a stricter receiver reads from the same text.

    Raises:
        ValueError: what is wrong and how to get a good one; it never holds the secret itself.
    """
    secret = text.strip()
    remedy = (
        f"write {SECRET_PREFIX} and then {_MIN_KEY_BYTES} to {_MAX_KEY_BYTES} random bytes in base64: "
        f'echo "{SECRET_PREFIX}$(openssl rand -base64 32)"'
    )
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError(f"a webhook secret starts with {SECRET_PREFIX}; {remedy}")
    encoded = secret.removeprefix(SECRET_PREFIX)
    try:
        # Receivers' libraries take secrets with and without padding.
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError as exc:
        raise ValueError(f"the part after {SECRET_PREFIX} is not base64; {remedy}") from exc
    if not _MIN_KEY_BYTES <= len(key) <= _MAX_KEY_BYTES:
        raise ValueError(f"the webhook secret holds {len(key)} bytes; {remedy}")
    return secret
