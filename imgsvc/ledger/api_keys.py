"""API keys: whom they identify, and what they allow. Only a digest of each secret is kept."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pymongo import ASCENDING

from imgsvc.domain.model import Scope
from imgsvc.ledger.clocks import current_time
from imgsvc.ledger.documents import Document
from imgsvc.ledger.mongo_errors import translated
from imgsvc.ledger.store import Store

USE_NOTED = timedelta(minutes=1)  # how exact ``last_used_at`` is


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of an API key."""

    id: str
    digest: bytes = field(repr=False)
    tenant: str
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None  # to the minute


class ApiKeys:
    """One document for each key; a revoked one stays, to be listed.

    Args:
        store: the database.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._api_keys = store.api_keys

    async def insert(
        self,
        key_id: str,
        digest: bytes,
        tenant: str,
        scopes: Collection[Scope],
        expires_at: datetime | None,
    ) -> None:
        """Write a new key.

        Args:
            key_id: its public part.
            digest: of its secret.
            tenant: whose it is.
            scopes: what it allows.
            expires_at: when it stops being valid; None: never.
        """
        with translated():
            await self._store.write(
                "insert_key",
                self._api_keys.insert_one,
                {
                    "_id": key_id,
                    "digest": digest,
                    "tenant": tenant,
                    "scopes": sorted(scopes),
                    "createdAt": current_time(),
                    "expiresAt": expires_at,
                    "revokedAt": None,
                    "lastUsedAt": None,
                },
            )

    async def find(self, key_id: str) -> ApiKey | None:
        """The key of this id, revoked or expired ones too, or None if there never was one."""
        with translated():
            found = await self._api_keys.find_one({"_id": key_id})
        return _api_key(found) if found else None

    async def find_all(self, tenant: str | None = None) -> list[ApiKey]:
        """All keys, or a tenant's, oldest first."""
        with translated():
            cursor = self._api_keys.find({"tenant": tenant} if tenant else {})
            return [_api_key(found) async for found in cursor.sort("createdAt", ASCENDING)]

    async def revoke(self, key_id: str) -> bool:
        """Make a key invalid for good; False if there is no such key."""
        with translated():
            await self._store.write(
                "revoke_key",
                self._api_keys.update_one,
                {"_id": key_id, "revokedAt": None},
                {"$set": {"revokedAt": current_time()}},
            )
        return await self.find(key_id) is not None

    async def note_use(self, key_id: str) -> None:
        """Remember that a key is in use, unless that was noted within the last minute."""
        now = current_time()
        with translated():
            await self._store.write(
                "note_use",
                self._api_keys.update_one,
                {
                    "_id": key_id,
                    "$or": [{"lastUsedAt": None}, {"lastUsedAt": {"$lt": now - USE_NOTED}}],
                },
                {"$set": {"lastUsedAt": now}},
            )


def _api_key(found: Document) -> ApiKey:
    return ApiKey(
        id=found["_id"],
        digest=bytes(found["digest"]),
        tenant=found["tenant"],
        scopes=frozenset(map(Scope, found["scopes"])),
        created_at=found["createdAt"],
        expires_at=found["expiresAt"],
        revoked_at=found["revokedAt"],
        last_used_at=found["lastUsedAt"],
    )
