"""The public keys that a token issuer publishes (a JWK set, RFC 7517).

PyJWT's own client for such sets blocks the event loop and bypasses our guard. So they are fetched
here, and PyJWT only parses them.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import jwt
import orjson

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.outbound.client import Outbound
from imgsvc.runtime import logs, redaction

FRESH_S = 600.0
PAUSE_S = 30.0
_FETCH_S = 5.0
_MAX_BYTES = 256 * 1024
_log = logs.get("jwks")


class KeySet:
    """A set that is fetched when it is first needed, when it is old, and when it lacks a key.

    One fetch runs at a time, and two are ``pause_s`` apart: tokens with made-up key ids cannot make
    us call the issuer more often. If a fetch fails, the keys from before stay.

    Args:
        outbound: the guarded client.
        url: where the set is.
        key_type: the only ``kty`` that is accepted.
        fresh_s: age at which the set is fetched again; the old one serves meanwhile.
        pause_s: from the start of one fetch to the next.
    """

    def __init__(
        self,
        outbound: Outbound,
        url: str,
        key_type: str,
        *,
        fresh_s: float = FRESH_S,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._outbound = outbound
        self._url = url
        self._key_type = key_type
        self._fresh_s, self._pause_s = fresh_s, pause_s
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._began = self._fetched = float("-inf")
        self._fetch: asyncio.Task[None] | None = None

    async def get(self, kid: str | None) -> jwt.PyJWK | None:
        """The key with this id, or None if the issuer has none; without an id, its only key.

        Raises:
            ServiceError: UNAVAILABLE; the key is not known, and the issuer cannot be reached.
        """
        key = self._find(kid)
        if key is not None:
            if time.monotonic() - self._fetched > self._fresh_s:
                self._begin()
            return key
        self._begin()
        if self._fetch is not None:
            # Shielded: others may wait for the same fetch.
            await asyncio.shield(self._fetch)
        key = self._find(kid)
        if key is None and self._fetched < self._began:
            raise ServiceError(
                ErrorCode.UNAVAILABLE,
                "The keys of the token's issuer cannot be had at present.",
                retry_after_s=self._began + self._pause_s - time.monotonic(),
            )
        return key

    def _find(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)

    def _begin(self) -> None:
        """Start a fetch, unless one was started a moment ago."""
        if time.monotonic() - self._began < self._pause_s:
            return
        self._began = time.monotonic()
        self._fetch = asyncio.create_task(self._fetch_keys())

    async def _fetch_keys(self) -> None:
        try:
            text = await self._outbound.read(self._url, limit_bytes=_MAX_BYTES, timeout_s=_FETCH_S)
            keys = self._usable(orjson.loads(text))
        except (ServiceError, ValueError, jwt.PyJWTError) as error:
            reason = (
                error.cause or error.detail
                if isinstance(error, ServiceError)
                else redaction.of_error(error)
            )
            _log.warning("jwks.failed", reason=reason, kept=len(self._keys))
            return
        self._keys = keys
        self._fetched = time.monotonic()
        _log.info("jwks.fetched", keys=len(keys))

    def _usable(self, document: Any) -> dict[str | None, jwt.PyJWK]:
        if not isinstance(document, dict):
            raise jwt.PyJWKSetError("It is no JSON object.")
        found = {
            key.key_id: key
            for key in jwt.PyJWKSet.from_dict(document).keys
            if key.key_type == self._key_type and key.public_key_use in (None, "sig")
        }
        if not found:
            raise jwt.PyJWKSetError(f"It holds no {self._key_type} key for signatures.")
        return found

    async def close(self) -> None:
        """Stop a fetch that is running."""
        if self._fetch is not None:
            self._fetch.cancel()
            await asyncio.gather(self._fetch, return_exceptions=True)
