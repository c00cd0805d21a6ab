"""Who calls: an API key's tenant, or a token's subject.

A caller who was let in is remembered for a few seconds under the hash of what they showed, so the
ordinary call costs a hash and a look into a dict, and a key that was revoked stops in seconds.
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
from imgsvc.http.problem_details import RefusedError
from imgsvc.ledger import USE_NOTED, ApiKey, Ledger

REMEMBERED_S = 5.0
_MOST_REMEMBERED = 10_000
_SCHEME = "bearer"
_REALM = 'Bearer realm="imgsvc"'


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

    def must_have(self, scope: Scope) -> None:
        """Raise FORBIDDEN unless they may do this."""
        if scope not in self.scopes:
            raise RefusedError(
                ErrorCode.FORBIDDEN,
                f"Your key does not allow this call; it needs the scope {scope}.",
                headers={
                    "WWW-Authenticate": f'{_REALM}, error="insufficient_scope", scope="{scope}"'
                },
            )


class Authenticator:
    """Finds out who calls.

    Args:
        ledger: where API keys are; None if none are taken.
        tokens: checks an issuer's tokens; None if none are taken.
    """

    def __init__(self, ledger: Ledger | None, tokens: Tokens | None) -> None:
        self._ledger = ledger
        self._tokens = tokens
        self._known: dict[bytes, tuple[float, Caller]] = {}
        self._notes: set[asyncio.Task[None]] = set()

    async def caller(self, shown: list[str]) -> Caller:
        """Who shows these ``Authorization`` headers.

        Raises:
            RefusedError: UNAUTHENTICATED; nobody we know.
            ServiceError: UNAVAILABLE; it cannot be found out at present.
        """
        if len(shown) != 1:
            # Of two, another reader of the call might take the other.
            raise RefusedError(ErrorCode.UNAUTHENTICATED, headers={"WWW-Authenticate": _REALM})
        hashed = hashlib.sha256(shown[0].encode("utf-8", "surrogateescape")).digest()
        until, caller = self._known.get(hashed, (0.0, None))
        if caller is not None and time.monotonic() < until:
            return caller
        try:
            caller, left_s = await self._ask(shown[0])
        except ServiceError as error:
            self._known.pop(hashed, None)
            if error.code is not ErrorCode.UNAUTHENTICATED:
                raise
            challenge = f'{_REALM}, error="invalid_token", error_description="{error.detail}"'
            raise RefusedError(
                error.code, error.detail, headers={"WWW-Authenticate": challenge}
            ) from None
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.pop(next(iter(self._known)))
        self._known[hashed] = (time.monotonic() + min(left_s, REMEMBERED_S), caller)
        return caller

    async def _ask(self, shown: str) -> tuple[Caller, float]:
        """Who shows this, and for how many seconds it lets in."""
        scheme, _, text = shown.partition(" ")
        if scheme.lower() == _SCHEME:
            if self._ledger and (credential := credentials.parse(text)):
                return await self._holder(self._ledger, credential)
            if self._tokens and not text.startswith(credentials.PREFIX):
                token = await self._tokens.check(text)
                return Caller(token.tenant, token.scopes, "token"), token.left_s
        raise ServiceError(
            ErrorCode.UNAUTHENTICATED,
            f"Send Authorization: Bearer with {self._what_is_taken()}.",
        )

    def _what_is_taken(self) -> str:
        keys = f"a key ({credentials.PREFIX}...)" if self._ledger else ""
        return " or ".join(filter(None, (keys, "a token of the issuer" if self._tokens else "")))

    async def _holder(
        self, ledger: Ledger, credential: credentials.Credential
    ) -> tuple[Caller, float]:
        key = await ledger.api_keys.find(credential.id)
        if key is None or not credential.fits(key.digest):
            raise ServiceError(ErrorCode.UNAUTHENTICATED, "There is no such key.")
        # Told only to who has the secret.
        if key.revoked_at:
            raise ServiceError(ErrorCode.UNAUTHENTICATED, "The key was revoked.")
        left_s = (key.expires_at - datetime.now(UTC)).total_seconds() if key.expires_at else None
        if left_s is not None and left_s <= 0:
            raise ServiceError(ErrorCode.UNAUTHENTICATED, "The key has expired.")
        self._note_use(ledger, key)
        return Caller(key.tenant, key.scopes, key.id), REMEMBERED_S if left_s is None else left_s

    def _note_use(self, ledger: Ledger, key: ApiKey) -> None:
        """Beside the call, which neither waits for it nor fails with it."""
        if key.last_used_at and datetime.now(UTC) - key.last_used_at < USE_NOTED:
            return

        async def note() -> None:
            with contextlib.suppress(ServiceError):
                await ledger.api_keys.note_use(key.id)

        task = asyncio.create_task(note())
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def close(self) -> None:
        """Finish what runs beside the calls."""
        await asyncio.gather(*self._notes)
        if self._tokens:
            await self._tokens.close()
