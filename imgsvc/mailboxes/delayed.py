"""Messages that are put aside until they are due, and then go back to their mailbox."""

from __future__ import annotations

from redis.asyncio import Redis

from imgsvc.mailboxes.envelope import Envelope, Job
from imgsvc.mailboxes.keys import (
    FETCH,
    FETCH_PRIORITY,
    GROUP,
    IN_FLIGHT,
    NOTIFY,
    REPLICAS,
    delayed,
    waiting,
)
from imgsvc.mailboxes.refusals import translated
from imgsvc.mailboxes.scripts import Scripts
from imgsvc.runtime.settings import Redis as RedisSettings

_BATCH = 100
_SCANNED = 1000


class Delayed:
    """What waits to go back to a mailbox.

    Args:
        client: from ``connect``.
        scripts: over the same client.
        settings: the lease of what is in flight, and the room for images that somebody waits for.
    """

    def __init__(self, client: Redis, scripts: Scripts, settings: RedisSettings) -> None:
        self._client = client
        self._scripts = scripts
        self._lease_ms = int(settings.lease_s * 1000)
        self._priority_window = settings.priority_window

    async def put_aside(self, envelope: Envelope, job: Job, delay_s: float) -> bool:
        """Put a message aside for ``delay_s`` seconds; False if it was not ours any more."""
        back = FETCH if envelope.mailbox == FETCH_PRIORITY else envelope.mailbox
        answer = await self._scripts.run_grouped(
            "later",
            (envelope.mailbox, delayed(back), IN_FLIGHT, waiting(back)),
            (
                GROUP,
                envelope.entry_id,
                self._lease_ms,
                envelope.key,
                job.model_dump_json(),
                max(0, round(delay_s * 1000)),
                envelope.deliveries,
            ),
        )
        return bool(answer)

    async def promote(self, mailbox: str) -> float | None:
        """Move what is due back to ``mailbox``; images that somebody waits for have their own.

        Returns:
            Seconds until the next message is due, or None if none waits.
        """
        keys = (mailbox, delayed(mailbox), waiting(mailbox), FETCH_PRIORITY, REPLICAS)
        moved, next_ms = await self._scripts.run("promote", keys, (_BATCH, self._priority_window))
        if int(moved) == _BATCH:
            return 0.0
        return None if int(next_ms) < 0 else int(next_ms) / 1000

    async def counts(self, mailbox: str) -> dict[str, int]:
        """How many messages of each request wait to come back to ``mailbox``."""
        with translated():
            found = await self._client.hgetall(waiting(mailbox))
        return {str(request): int(count) for request, count in found.items()}

    async def forget(self, request_id: str) -> None:
        """Drop what waits of a request whose data are gone."""
        for mailbox in (FETCH, NOTIFY):
            keys = (delayed(mailbox), waiting(mailbox), IN_FLIGHT)
            with translated():
                waits = await self._client.hget(waiting(mailbox), request_id)
                found = self._client.zscan_iter(
                    delayed(mailbox), match=f"*{request_id}*", count=_SCANNED
                )
                members = [member async for member, _ in found] if waits else []
            for start in range(0, len(members), _SCANNED):
                some = members[start : start + _SCANNED]
                await self._scripts.run("forget", keys, (request_id, *some))
