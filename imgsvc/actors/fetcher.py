"""Fetcher: from a URL to a file in the spool."""

from __future__ import annotations

import random
import time
from typing import ClassVar

from imgsvc import backoff
from imgsvc.actors.base import HandOff, ImageActor, Later, Parts, Verdict
from imgsvc.errors import ErrorCode, ServiceError
from imgsvc.mailboxes import FETCH, Facts, compress_lane
from imgsvc.messages import Fetched, ImageJob, Times

_FIRST_WAIT_S = 1.0


class Fetcher(ImageActor):
    """Takes images that are to be fetched; the only one that reads what origins send."""

    name: ClassVar[str] = "fetcher"

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        parts.spool.on_freed = self.room_changed

    def mailbox(self) -> str:
        """Shared: any replica may fetch."""
        return FETCH

    def capacity(self) -> int:
        """As many as may be fetched at once, less what waits to be encoded here."""
        spool, fetch = self.parts.spool, self.parts.settings.fetch
        if spool.is_full:
            return 0
        return max(0, min(fetch.concurrency, fetch.ahead - spool.files + len(self._tasks)))

    async def handle(self, job: ImageJob, facts: Facts) -> Verdict:  # noqa: ARG002
        """Fetch one image into a new file and pass it to this replica's Compressor.

        Twice is safe because it only reads from the origin and writes a file of its own; the
        file of the loser is removed.
        """
        work = await self.parts.ledger.work(job.request_id, job.product, job.index, job.turn)
        if work is None:
            return await self.closed(job)
        spool = self.parts.spool
        file = spool.new_name()
        started = time.monotonic()
        try:
            async with spool.writing(file) as write:
                counted = self.parts.traffic.counted(work.payer, write)
                size = await self.parts.outbound.download(work.url, counted)
        except ServiceError as error:
            await spool.remove(file)
            if error.code is ErrorCode.UNAVAILABLE:
                raise
            return await self._failed(job, error, _since(started))
        except BaseException:
            await spool.remove(file)
            raise
        lane = compress_lane(self.parts.mailboxes.replica)
        fetched = Fetched(file=file, bytes_in=size, ms=_since(started))
        return HandOff(lane, job, fetched, event="image.fetched", told={"bytes_in": size})

    async def _failed(self, job: ImageJob, error: ServiceError, ms: Times) -> Verdict:
        waits = backoff.exponential(self.parts.settings.fetch.attempts, _FIRST_WAIT_S)
        passing = error.code.retryable or error.retry_after_s is not None
        wait_s = backoff.next_wait_s(
            waits,
            job.attempt,
            jitter=0.2,
            rand=random.random(),  # noqa: S311 - spreads retries, no secret
            retry_after_s=error.retry_after_s,
        )
        if passing and wait_s is not None:
            return Later(
                job.model_copy(update={"attempt": job.attempt + 1}),
                wait_s,
                event="image.put_off",
                told={"code": error.code.name, "wait_s": wait_s},
            )
        return await self.fail(job, error.code, error.detail, ms)


def _since(started: float) -> Times:
    return {"fetch": round((time.monotonic() - started) * 1000)}
