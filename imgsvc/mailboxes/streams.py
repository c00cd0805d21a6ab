"""The mailboxes themselves: Redis Streams, into which work is dealt and between which it is passed.

A message is in exactly one mailbox. Every script that moves one acts only if its ``XACK`` answered
1, which makes the pending entry a token that can be spent once. Lost replies, paused replicas and
clients that retry therefore never duplicate a message. What Redis forgets, the dealer deals again
from the ledger.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import cast

import orjson
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from imgsvc.mailboxes.connection import now_ms
from imgsvc.mailboxes.envelope import Envelope, Facts, Job
from imgsvc.mailboxes.keys import (
    COPIES,
    DEAD,
    FETCH,
    FETCH_PRIORITY,
    GROUP,
    IN_FLIGHT,
    NOTIFY,
    REPLICAS,
    WAKE,
    compress_lane,
    upload_lane,
)
from imgsvc.mailboxes.refusals import code_of, translated
from imgsvc.mailboxes.scripts import Scripts
from imgsvc.runtime.group_commit import GroupCommit
from imgsvc.runtime.settings import Redis as RedisSettings

BEGUN = 1_000_000
"""What ``begin`` sets as an entry's number of deliveries in the pending list.

Redis counts there, too, but stays far below, and nobody else reads that number. The mark goes when
the entry goes; a list of our own would need cleaning up.
"""

_GROUP_SIZE = 100
_GROUP_EVERY_S = 0.05


class Streams:
    """Deals work into mailboxes and passes it on.

    Args:
        client: from ``connect``.
        scripts: over the same client.
        settings: the windows of the mailboxes, and the lease of what is in flight.
        replica: the id of this process.
    """

    def __init__(
        self, client: Redis, scripts: Scripts, settings: RedisSettings, replica: str
    ) -> None:
        self._client = client
        self._scripts = scripts
        self._settings = settings
        self._replica = replica
        self._lease_ms = int(settings.lease_s * 1000)
        self._begins = GroupCommit[Envelope, None](self._begin_group, _GROUP_SIZE, _GROUP_EVERY_S)

    async def ensure_group(self, mailbox: str) -> None:
        """Create the consumer group if it is missing; it starts with the mailbox' first entry."""
        with translated():
            try:
                await self._client.xgroup_create(mailbox, GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if code_of(error) != "BUSYGROUP":
                    raise

    async def deal(self, mailbox: str, jobs: Sequence[Job], *, bounded: bool) -> tuple[int, int]:
        """Put work into a shared mailbox unless it is in flight already.

        Args:
            mailbox: ``FETCH``, ``FETCH_PRIORITY`` or ``NOTIFY``.
            jobs: what to put, in order.
            bounded: stop when the mailbox holds as many entries per live replica as it has room
                for: ``[redis] window``, or what is kept for images that somebody waits for.

        Returns:
            How many jobs were looked at before the window closed, and how many were new.
        """
        if not jobs:
            return 0, 0
        pairs = [text for job in jobs for text in (job.key, job.model_dump_json())]
        settings = self._settings
        room = settings.priority_window if mailbox == FETCH_PRIORITY else settings.window
        seen, added = await self._scripts.run(
            "deal", (mailbox, IN_FLIGHT, REPLICAS), (room if bounded else 0, self._lease_ms, *pairs)
        )
        return int(seen), int(added)

    async def begin(self, envelope: Envelope) -> None:
        """Note that work on a message has begun; nothing happens if it is not ours any more.

        If this replica is lost now, the message is charged for it. Messages that wait are not.
        """
        with translated():
            await self._begins.submit(envelope)

    async def _begin_group(self, group: Sequence[Envelope]) -> list[None]:
        pipeline = self._client.pipeline(transaction=False)
        for each in group:
            pipeline.xclaim(
                each.mailbox,
                GROUP,
                self._replica,
                0,
                [each.entry_id],
                retrycount=BEGUN,
                justid=True,
            )
        await pipeline.execute(raise_on_error=False)
        return [None] * len(group)

    async def hand_off(self, envelope: Envelope, to: str, job: Job, facts: Facts) -> bool:
        """Pass a message on; False if it was not ours any more and nothing was done.

        The replicas that were lost with an image count on its way, but not against its webhook.

        Args:
            envelope: what was taken.
            to: the next mailbox.
            job: what goes on.
            facts: what this stage found out, for the next.
        """
        answer = await self._scripts.run_grouped(
            "hand_off",
            (envelope.mailbox, to, IN_FLIGHT, WAKE),
            (
                GROUP,
                envelope.entry_id,
                self._lease_ms,
                envelope.key,
                job.key,
                job.model_dump_json(),
                facts.model_dump_json() if facts else "",
                envelope.deliveries if job.key == envelope.key else 0,
                self._low_water(envelope.mailbox),
            ),
        )
        return bool(answer)

    async def settle(self, envelope: Envelope) -> bool:
        """Finish with a message whose work is recorded; False if it was not ours any more."""
        answer = await self._scripts.run_grouped(
            "settle",
            (envelope.mailbox, IN_FLIGHT, WAKE),
            (GROUP, envelope.entry_id, envelope.key, self._low_water(envelope.mailbox)),
        )
        return bool(answer)

    def _low_water(self, mailbox: str) -> int:
        """The length at which the dealer is to refill a mailbox; -1 if it never is."""
        return self._settings.window // 2 if mailbox == FETCH else -1

    async def in_flight(self, keys: Collection[str]) -> set[str]:
        """Which of these keys some mailbox knows."""
        if not keys:
            return set()
        asked = sorted(keys)
        with translated():
            marks = await self._client.zmscore(IN_FLIGHT, asked)
        return {key for key, mark in zip(asked, marks, strict=True) if mark is not None}

    async def forget_doubtful(self) -> int:
        """Drop in-flight marks that outlived their lease, so that the work is dealt again."""
        with translated():
            now = await now_ms(self._client)
            return int(await self._client.zremrangebyscore(IN_FLIGHT, "-inf", now))

    async def files_in_lanes(self) -> set[str]:
        """Spool files that messages in this replica's lanes refer to."""
        files = set()
        for lane in (compress_lane(self._replica), upload_lane(self._replica)):
            with translated():
                entries = await self._client.xrange(lane)
            for _, fields in cast("list[tuple[str, dict[str, str]]]", entries):
                if facts := fields.get("x"):
                    files |= {file for key, file in orjson.loads(facts).items() if key == "file"}
        return files

    async def lengths(self) -> dict[str, int]:
        """Entries in each shared mailbox and in this replica's lanes, by short name."""
        names = {
            "fetch": FETCH,
            "fetch:priority": FETCH_PRIORITY,
            "copies": COPIES,
            "notify": NOTIFY,
            "compress": compress_lane(self._replica),
            "upload": upload_lane(self._replica),
            "dead": DEAD,
        }
        with translated():
            return {short: int(await self._client.xlen(key)) for short, key in names.items()}
