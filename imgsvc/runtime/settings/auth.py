"""``[auth]``: who may come in."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from imgsvc.runtime.settings.section import Section, is_loopback


class Auth(Section):
    """Who may come in."""

    mode: Literal["none", "keys", "oauth", "keys+oauth"] | None = Field(
        None,
        description="`keys`: who has one made by `imgsvc keys`. `oauth`: who has a token of the "
        "issuer below. `keys+oauth`: both. `none`: everyone who reaches the port.",
    )
    protect_docs: bool = Field(
        default=False,
        description="Whether `/docs` and `/openapi.json` need the scope `admin`, as `/metrics` "
        "does.",
    )
    oauth_issuer: str | None = Field(None, description="What `iss` of a token must be.")
    oauth_audience: str | None = Field(None, description="What `aud` of a token must be.")
    oauth_jwks_url: str | None = Field(
        None,
        description="Where the issuer publishes its keys: https, fetched as images are; "
        "`[net] allow` exempts a private address.",
    )
    oauth_algorithms: Literal["RS", "PS", "ES", "EdDSA"] = Field(
        "RS", description="The one family that signs: `RS`, `PS`, `ES` or `EdDSA`."
    )
    oauth_tenant_claim: Annotated[str, Field(min_length=1)] = Field(
        "sub", description="The claim that names the tenant."
    )
    oauth_leeway_s: Annotated[float, Field(ge=0, le=60)] = Field(
        30.0, description="Between the issuer's clock and ours; 60 is the most."
    )

    @property
    def takes_keys(self) -> bool:
        """Whether API keys let in."""
        return self.mode in ("keys", "keys+oauth")

    @property
    def takes_tokens(self) -> bool:
        """Whether an issuer's tokens let in."""
        return self.mode in ("oauth", "keys+oauth")

    @field_validator("oauth_jwks_url")
    @classmethod
    def _not_in_clear(cls, value: str | None) -> str | None:
        # Whoever can change the answer on its way can let in whomever they like.
        url = urlsplit(value or "")
        if value and url.scheme != "https" and not is_loopback(url.hostname or ""):
            raise ValueError("must start with https://, but for an address of this machine")
        return value
