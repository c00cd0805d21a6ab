"""Which replicas are alive, and the taking back of what a lost one held."""

from __future__ import annotations

import contextlib

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from imgsvc.mailboxes.connection import now_ms
from imgsvc.mailboxes.keys import GROUP, REPLICAS, SHARED, compress_lane, upload_lane
from imgsvc.mailboxes.refusals import translated
from imgsvc.mailboxes.scripts import Scripts
from imgsvc.mailboxes.streams import BEGUN
from imgsvc.runtime.settings import Redis as RedisSettings

_BATCH = 100


class Replicas:
    """This replica's heartbeat, and the others'.

    Args:
        client: from ``connect``.
        scripts: over the same client.
        settings: how long a heartbeat counts.
        replica: the id of this process.
    """

    def __init__(
        self, client: Redis, scripts: Scripts, settings: RedisSettings, replica: str
    ) -> None:
        self._client = client
        self._scripts = scripts
        self._ttl_ms = int(settings.heartbeat_s * 1000)
        self._replica = replica

    async def beat(self) -> None:
        """Renew this replica's heartbeat."""
        await self._scripts.run("beat", (REPLICAS,), (self._replica, self._ttl_ms))

    async def silent(self) -> set[str]:
        """Replicas whose heartbeat expired, and consumers that never had one."""
        with translated():
            now = await now_ms(self._client)
            silent = set(await self._client.zrangebyscore(REPLICAS, "-inf", now))
            alive = set(await self._client.zrangebyscore(REPLICAS, f"({now}", "+inf"))
            for mailbox in SHARED:
                with contextlib.suppress(ResponseError):  # no such key yet
                    consumers = await self._client.xinfo_consumers(mailbox, GROUP)
                    silent |= {c["name"] for c in consumers} - alive
        return {str(name) for name in silent} - {self._replica}

    async def reclaim(self, replica: str, *, leaving: bool = False) -> int:
        """Take back all that ``replica`` held; nothing if its heartbeat is fresh.

        Args:
            replica: whose mailboxes.
            leaving: this replica itself is going away in good order.

        Returns:
            How many messages went back to the shared mailboxes.
        """
        keys = (REPLICAS, *SHARED, compress_lane(replica), upload_lane(replica))
        total = 0
        while True:
            moved, done = await self._scripts.run(
                "reclaim", keys, (GROUP, replica, _BATCH, int(leaving), len(SHARED), BEGUN)
            )
            if int(moved) < 0:
                return total
            total += int(moved)
            if int(done):
                return total
