"""The tokens of one issuer: JSON Web Tokens, verified here without asking the issuer.

A token cannot choose how it is verified: the settings name the family of algorithms and where the
keys are (``jku`` and ``x5u`` are not read).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import jwt

from imgsvc.auth.jwks import KeySet
from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import Scope
from imgsvc.outbound.client import Outbound
from imgsvc.runtime.settings import Auth, SettingsError

TENANT_PREFIX = "oauth:"
_MAX_TENANT = 255  # of a subject, by OpenID Connect Core section 2
# Family -> the type of its keys, and its algorithms. All are asymmetric.
_FAMILIES = {
    "RS": ("RSA", ("RS256", "RS384", "RS512")),
    "PS": ("RSA", ("PS256", "PS384", "PS512")),
    "ES": ("EC", ("ES256", "ES384", "ES512")),
    "EdDSA": ("OKP", ("EdDSA",)),
}
# The first that matches is the reason that the client gets.
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (jwt.ExpiredSignatureError, "The token has expired."),
    (jwt.ImmatureSignatureError, "The token is not valid yet."),
    (jwt.InvalidAudienceError, "The token is for another audience."),
    (jwt.InvalidIssuerError, "The token is from another issuer."),
    (jwt.InvalidAlgorithmError, "The token is signed with an algorithm that is not accepted here."),
    (jwt.MissingRequiredClaimError, "The token lacks a claim that is needed here."),
    (Exception, "The token is not valid."),
)


@dataclass(frozen=True, slots=True)
class Token:
    """What a valid token says.

    Attributes:
        tenant: whose requests it gives access to; has a prefix, so it is never an API key's.
        scopes: what it allows.
        left_s: seconds until it expires.
    """

    tenant: str
    scopes: frozenset[Scope]
    left_s: float


class Tokens:
    """Checks tokens.

    Args:
        settings: the issuer, and the claims that its tokens need.
        outbound: fetches its keys.

    Raises:
        SettingsError: the guard refuses the address of the keys.
    """

    def __init__(self, settings: Auth, outbound: Outbound) -> None:
        url = settings.oauth_jwks_url or ""
        try:
            outbound.guard.parse(url)
        except ServiceError as error:
            raise SettingsError(
                f"auth.oauth_jwks_url = {url!r}: {error.detail} If it is one of your own network, "
                "name that in [net] allow."
            ) from None
        key_type, self._algorithms = _FAMILIES[settings.oauth_algorithms]
        self._settings = settings
        self._keys = KeySet(outbound, url, key_type)

    async def check(self, text: str) -> Token:
        """What a token says, if it is valid.

        Raises:
            ServiceError: UNAUTHENTICATED with the reason, or UNAVAILABLE if the issuer's keys
                cannot be had.
        """
        try:
            # Checked first, so that a token which cannot be valid causes no fetch.
            header = jwt.get_unverified_header(text)
            if header.get("alg") not in self._algorithms:
                raise jwt.InvalidAlgorithmError
            key = await self._keys.get(header.get("kid"))
            if key is None:
                raise _refused("The token is signed with a key that its issuer does not publish.")
            return self._read(text, key)
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            reason = next(text for kind, text in _REASONS if isinstance(error, kind))
            raise _refused(reason) from None

    def _read(self, text: str, key: jwt.PyJWK) -> Token:
        settings = self._settings
        claims: dict[str, Any] = jwt.decode(
            text,
            key.key,
            algorithms=self._algorithms,
            issuer=settings.oauth_issuer,
            audience=settings.oauth_audience,
            leeway=settings.oauth_leeway_s,
            options={
                "require": ["exp", "iss", "aud", settings.oauth_tenant_claim],
                "enforce_minimum_key_length": True,
            },
        )
        tenant = claims[settings.oauth_tenant_claim]
        usable = isinstance(tenant, str) and tenant.isprintable() and 0 < len(tenant) <= _MAX_TENANT
        if not usable:
            raise _refused(f"The token's {settings.oauth_tenant_claim} is not a usable name.")
        granted = claims.get("scope")
        words = granted.split() if isinstance(granted, str) else []
        return Token(
            TENANT_PREFIX + tenant,
            frozenset(scope for scope in Scope if scope in words),
            float(claims["exp"]) - time.time(),
        )

    async def close(self) -> None:
        """Stop fetching keys."""
        await self._keys.close()


def _refused(reason: str) -> ServiceError:
    return ServiceError(ErrorCode.UNAUTHENTICATED, reason)
