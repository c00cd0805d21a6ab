"""Which replica leads in a task that one is enough for. Two leaders waste work, but do no harm."""

from __future__ import annotations

from redis.asyncio import Redis

from imgsvc.mailboxes.refusals import translated


class Lead:
    """Takes the lead for this replica, and gives it up.

    Args:
        client: from ``connect``.
        replica: the id of this process.
    """

    def __init__(self, client: Redis, replica: str) -> None:
        self._client = client
        self._replica = replica

    async def hold(self, task: str, ttl_s: float) -> bool:
        """Become or stay the leader; False if another replica leads.

        Args:
            task: ``DEALING`` or ``ERASING``.
            ttl_s: how long the lead lasts unless it is renewed.
        """
        ttl_ms = int(ttl_s * 1000)
        with translated():
            if await self._client.set(task, self._replica, nx=True, px=ttl_ms):
                return True
            if await self._client.get(task) != self._replica:
                return False
            return bool(await self._client.pexpire(task, ttl_ms))

    async def release(self, task: str) -> None:
        """Let another replica lead at once."""
        with translated():
            if await self._client.get(task) == self._replica:
                await self._client.delete(task)
