"""Reaper: sends this replica's heartbeat, and takes over from replicas whose heartbeat stopped."""

from __future__ import annotations

import asyncio
import time
from typing import ClassVar

from imgsvc.actors.actor import Actor
from imgsvc.actors.parts import Parts
from imgsvc.runtime.cancellation import wait_or_cancel

_BEATS_PER_EXPIRY = 4


class Reaper(Actor):
    """Gives the messages of lost replicas back to the shared mailboxes, and sweeps leftovers."""

    name: ClassVar[str] = "reaper"

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._sweep_journal_at = 0.0

    async def run(self) -> None:
        """Beat and reap side by side, so that a slow reaping does not look like death."""
        async with asyncio.TaskGroup() as group:
            await wait_or_cancel(
                group.create_task(self.repeat(self._beat)),
                group.create_task(self.repeat(self._reap)),
            )

    async def _beat(self) -> float:
        await self.parts.mailboxes.replicas.beat()
        return self.parts.settings.redis.heartbeat_s / _BEATS_PER_EXPIRY

    async def _reap(self) -> float:
        await self._take_over()
        await self.parts.mailboxes.streams.forget_doubtful()
        await self._sweep_spool()
        await self._sweep_journal()
        await self._measure()
        settings = self.parts.settings.redis
        return min(settings.heartbeat_s, settings.reconcile_s) / 2

    async def _take_over(self) -> None:
        for replica in await self.parts.mailboxes.replicas.silent():
            moved = await self.parts.mailboxes.replicas.reclaim(replica)
            self.parts.metrics.reclaimed.inc(moved)
            self.log.warning("replica.reclaimed", replica=replica, messages=moved)

    async def _sweep_spool(self) -> None:
        """Remove files without a message, as after a loss of Redis: they take up room in the spool."""
        candidates = self.parts.spool.unheld()
        if candidates:
            for file in candidates - await self.parts.mailboxes.streams.files_in_lanes():
                await self.parts.spool.remove(file)
                self.log.warning("spool.orphan", file=file)

    async def _sweep_journal(self) -> None:
        """Remove what interrupted uploads left in the ledger."""
        now = time.monotonic()
        if now >= self._sweep_journal_at:
            if removed := await self.parts.ledger.journal.sweep():
                self.log.warning("intake.removed", uploads=removed)
            await self.parts.ledger.sources.forget_older(self.parts.settings.dedupe.ttl_s)
            self._sweep_journal_at = now + self.parts.ledger.journal.sweep_every_s

    async def _measure(self) -> None:
        metrics = self.parts.metrics
        for mailbox, length in (await self.parts.mailboxes.streams.lengths()).items():
            metrics.mailbox_length.labels(mailbox).set(length)
        metrics.spool_bytes.set(self.parts.spool.used_bytes)
        metrics.erasures_refused.set(await self.parts.ledger.refusals.count())
