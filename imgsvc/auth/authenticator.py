"""Who calls: the holder of an API key, or the subject of an issuer's token.

A caller who was let in is remembered for a few seconds under the hash of their credential. So an
ordinary call costs a hash and a dict lookup, and a key that was revoked stops working in seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from imgsvc.auth import credentials
from imgsvc.auth.oauth import Tokens
from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import Scope
from imgsvc.ledger import USE_NOTED, ApiKey, Ledger

REMEMBERED_S = 5.0
_MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who was let in.

    Attributes:
        tenant: whose requests they see.
        scopes: what they may do.
        key: the id of their API key, or ``token``; for logs.
    """

    tenant: str
    scopes: frozenset[Scope]
    key: str


class Authenticator:
    """Finds out who calls.

    Args:
        ledger: where API keys are; None if API keys are not accepted.
        tokens: checks an issuer's tokens; None if tokens are not accepted.
    """

    def __init__(self, ledger: Ledger | None, tokens: Tokens | None) -> None:
        self._ledger = ledger
        self._tokens = tokens
        self._known: dict[bytes, tuple[float, Caller]] = {}
        self._notes: set[asyncio.Task[None]] = set()

    @property
    def accepts(self) -> str:
        """The credentials that are accepted, in words."""
        keys = f"a key ({credentials.PREFIX}...)" if self._ledger else ""
        return " or ".join(filter(None, (keys, "a token of the issuer" if self._tokens else "")))

    async def caller(self, credential: str) -> Caller:
        """Who has this credential.

        Args:
            credential: an API key or a token.

        Raises:
            ServiceError: UNAUTHENTICATED if nobody has it; UNAVAILABLE if that cannot be found out
                at present.
        """
        hashed = hashlib.sha256(credential.encode("utf-8", "surrogateescape")).digest()
        until, caller = self._known.get(hashed, (0.0, None))
        if caller is not None and time.monotonic() < until:
            return caller
        try:
            caller, left_s = await self._identify(credential)
        except ServiceError:
            self._known.pop(hashed, None)
            raise
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.pop(next(iter(self._known)))
        self._known[hashed] = (time.monotonic() + min(left_s, REMEMBERED_S), caller)
        return caller

    async def _identify(self, credential: str) -> tuple[Caller, float]:
        """Who has this credential, and for how many more seconds it is valid."""
        if self._ledger and (key := credentials.parse(credential)):
            return await self._holder(self._ledger, key)
        if self._tokens and not credential.startswith(credentials.PREFIX):
            token = await self._tokens.check(credential)
            return Caller(token.tenant, token.scopes, "token"), token.left_s
        raise ServiceError(
            ErrorCode.UNAUTHENTICATED, f"Send Authorization: Bearer with {self.accepts}."
        )

    async def _holder(
        self, ledger: Ledger, credential: credentials.Credential
    ) -> tuple[Caller, float]:
        key = await ledger.api_keys.find(credential.id)
        if key is None or not credential.fits(key.digest):
            raise ServiceError(ErrorCode.UNAUTHENTICATED, "There is no such key.")
        # Only whoever has the secret learns the rest.
        if key.revoked_at:
            raise ServiceError(ErrorCode.UNAUTHENTICATED, "The key was revoked.")
        left_s = (key.expires_at - datetime.now(UTC)).total_seconds() if key.expires_at else None
        if left_s is not None and left_s <= 0:
            raise ServiceError(ErrorCode.UNAUTHENTICATED, "The key has expired.")
        self._note_use(ledger, key)
        return Caller(key.tenant, key.scopes, key.id), REMEMBERED_S if left_s is None else left_s

    def _note_use(self, ledger: Ledger, key: ApiKey) -> None:
        """Note the use in the background: the call neither waits for it nor fails with it."""
        if key.last_used_at and datetime.now(UTC) - key.last_used_at < USE_NOTED:
            return

        async def note() -> None:
            with contextlib.suppress(ServiceError):
                await ledger.api_keys.note_use(key.id)

        task = asyncio.create_task(note())
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def close(self) -> None:
        """Finish what runs in the background."""
        await asyncio.gather(*self._notes)
        if self._tokens:
            await self._tokens.close()
