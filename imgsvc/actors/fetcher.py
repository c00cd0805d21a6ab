"""Fetcher: downloads a URL into a file in the spool."""

from __future__ import annotations

import asyncio
import random
from typing import ClassVar

from blake3 import blake3

from imgsvc.actors.actor import is_away
from imgsvc.actors.image_actor import ImageActor
from imgsvc.actors.parts import Parts
from imgsvc.actors.verdicts import HandOff, Later, Verdict
from imgsvc.domain import backoff
from imgsvc.domain.errors import ServiceError
from imgsvc.domain.messages import Fetched, ImageJob, Reused, Source, Times
from imgsvc.ledger import Completed, Remembered, Work, source_key
from imgsvc.mailboxes.envelope import Facts
from imgsvc.mailboxes.keys import FETCH, compress_lane, upload_lane
from imgsvc.outbound.politeness import GivenUpError, PutOffError, asks_for_time
from imgsvc.outbound.trip import Trip
from imgsvc.runtime.cancellation import cancel_and_wait
from imgsvc.runtime.priority_semaphore import PrioritySemaphore

_FIRST_WAIT_S = 1.0


class Fetcher(ImageActor):
    """Takes images that are to be fetched. Only the Fetchers read what origins send."""

    name: ClassVar[str] = "fetcher"
    most_at_once = 8

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        parts.spool.on_freed[self.name] = self._freed
        self._fetching = PrioritySemaphore(self.at_once(), self._has_room)
        dedupe = parts.settings.dedupe
        self._ttl_s = dedupe.ttl_s if dedupe.enabled else 0.0

    def mailbox(self) -> str:
        """Shared: any replica may fetch."""
        return FETCH

    def capacity(self) -> int:
        """A window, since priority counts only among the images in hand."""
        settings = self.parts.settings
        most = max(settings.redis.window, settings.fetch.concurrency)
        return 0 if self.parts.spool.is_full else most

    def at_once(self) -> int:
        """The most images to fetch at a time."""
        return self.parts.settings.fetch.concurrency

    def ahead(self) -> int:
        """The most files that may wait to be encoded; above that nothing is fetched."""
        return self.parts.settings.fetch.ahead

    def _has_room(self) -> bool:
        """Whether another image may be fetched without getting too far ahead of the Compressor.

        An image that was just admitted has no file yet. So they are admitted in bursts, and may get
        one burst too far ahead. But then their reads of the ledger go together, which costs less.
        """
        spool = self.parts.spool
        return (
            spool.sources < self.ahead()
            and spool.results < self.parts.settings.gcs.in_hand
            and not spool.is_full
        )

    def _freed(self) -> None:
        self._fetching.admit()
        self.room_changed()

    def stop(self) -> None:
        """Take nothing new, and leave the images that still wait to other replicas."""
        super().stop()
        self._fetching.lift()

    async def run(self) -> None:
        """Fetch images, and meanwhile share origins with the other replicas."""
        async with asyncio.TaskGroup() as group:
            sharing = group.create_task(self.parts.politeness.keep_sharing(), name="politeness")
            try:
                await super().run()
            finally:
                await cancel_and_wait(sharing)

    async def handle(self, job: ImageJob, facts: Facts) -> Verdict:  # noqa: ARG002
        """Fetch one image into a new file and pass it to this replica's Compressor.

        Twice is safe because it only reads from the origin and writes a file of its own. The file
        of the run that loses is removed.
        """
        trip = Trip(self.parts.politeness, self.begin)
        try:
            async with self._fetching.hold(priority=job.priority):
                if self.stopping.is_set():
                    return HandOff(self.mailbox(), job, event="image.left")
                image = (job.request_id, job.product, job.index)
                work = await self.parts.ledger.backlog.work(*image, job.turn)
                if work and not work.shared:
                    return await self._fetch(job, work, trip)
        except PutOffError as later:
            fields = {"origin": later.origin, "reason": later.reason, "wait_s": later.wait_s}
            return Later(job, later.wait_s, event="image.put_off", fields=fields)
        except ServiceError as error:
            return self._retry(job, error) or await self.failed(job, error, ms=_times(trip))
        if work and work.shared:
            return await self._share(job, work.shared)
        return await self.closed(job)

    async def _fetch(self, job: ImageJob, work: Work, trip: Trip) -> Verdict:
        """Fetch a file, or find that it is the same as before.

        Raises:
            PutOffError: its origin has no room for it now.
            ServiceError: with the code of an image that cannot be fetched.
        """
        key = source_key(work.tenant, work.url, work.recipe) if self._ttl_s else None
        known = await self.parts.ledger.sources.recall(key, self._ttl_s) if key else None
        spool = self.parts.spool
        file = spool.new_name()
        digest = blake3()
        try:
            async with spool.writing(file) as write:
                counted = self.parts.traffic.counted(work.quota_tenant, write)

                async def digested(piece: bytes) -> None:
                    digest.update(piece)
                    await counted(piece)

                downloaded = await self.parts.outbound.download(
                    work.url,
                    digested if key else counted,
                    trip.visit,
                    known=known.source.validators if known else None,
                    tenant=work.quota_tenant,
                )
        except BaseException:
            await spool.remove(file)
            raise
        source = None
        if downloaded and key:
            source = Source(key=key, blake3=digest.hexdigest(), validators=downloaded.validators)
        if known and (not source or source.blake3 == known.source.blake3):
            await spool.remove(file)
            return self._reuse(job, known, source or known.source, _times(trip))
        assert downloaded  # noqa: S101 - only what is known can be unchanged
        size = downloaded.bytes
        lane = compress_lane(self.parts.mailboxes.replica)
        fetched = Fetched(
            file=file, bytes_in=size, recipe=work.recipe, source=source, ms=_times(trip)
        )
        return HandOff(lane, job, fetched, event="image.fetched", fields={"bytes_in": size})

    async def _share(self, job: ImageJob, end: Completed) -> Verdict:
        """Give an image the end of another one with the same URL."""
        ended = await self.finish(job, end)
        return self.ended(job, "image.shared", due=ended.due)

    def _reuse(self, job: ImageJob, known: Remembered, source: Source, ms: Times) -> Verdict:
        """Pass on what the same source was encoded to before, to have it copied."""
        end = known.end
        reused = Reused(
            source=source,
            output=end.output,
            bytes_in=end.bytes_in,
            bytes_out=end.bytes_out,
            format=end.format,
            width=end.width,
            height=end.height,
            note=end.note,
            ms=ms,
        )
        lane = upload_lane(self.parts.mailboxes.replica)
        return HandOff(lane, job, reused, event="image.unchanged")

    def _retry(self, job: ImageJob, error: ServiceError) -> Verdict | None:
        """The verdict on an image that is worth another attempt later; None if it is not."""
        passing = error.code.retryable or error.retry_after_s is not None
        if is_away(error) or not passing or isinstance(error, GivenUpError):
            return None
        fetch = self.parts.settings.fetch
        attempts = fetch.patience if asks_for_time(error) else fetch.attempts
        wait_s = backoff.next_wait_s(
            backoff.exponential(attempts, _FIRST_WAIT_S),
            job.attempt,
            jitter=0.2,
            rand=random.random(),  # noqa: S311 - spreads retries, no secret
            retry_after_s=error.retry_after_s,
        )
        if wait_s is None:
            return None
        return Later(
            job.model_copy(update={"attempt": job.attempt + 1}),
            wait_s,
            event="image.put_off",
            fields={"code": error.code.name, "reason": "failure", "wait_s": wait_s}
            | ({"cause": error.cause} if error.cause else {}),
        )


def _times(trip: Trip) -> Times:
    return {"fetch": round(trip.seconds * 1000)}
