"""Uploader: stores a spool file in the bucket, and records in the ledger how its image ended."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import ClassVar

from imgsvc.actors.image_actor import ImageActor
from imgsvc.actors.parts import Parts
from imgsvc.actors.verdicts import Verdict
from imgsvc.domain.errors import ServiceError
from imgsvc.domain.messages import Compressed, ImageJob, Reused, Source
from imgsvc.domain.model import FILE_TYPES
from imgsvc.ledger import Completed
from imgsvc.mailboxes.envelope import Facts
from imgsvc.mailboxes.keys import upload_lane
from imgsvc.runtime.priority_semaphore import PrioritySemaphore
from imgsvc.storage.objects import Stored


class Uploader(ImageActor):
    """Takes images whose result lies in this replica's spool."""

    name: ClassVar[str] = "uploader"
    own_lane = True

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._threads = PrioritySemaphore(parts.settings.gcs.threads)

    def mailbox(self) -> str:
        """This replica's lane."""
        return upload_lane(self.parts.mailboxes.replica)

    def capacity(self) -> int:
        """More than are stored at a time, so that those with priority can go first."""
        return self.parts.settings.gcs.in_hand

    async def handle(self, job: ImageJob, facts: Facts) -> Verdict:
        """Store one result and record it; the last image of a request makes its webhook due.

        Twice is safe because an object is created only if it is not there, and adopted if it is,
        and because the ledger keeps the first end that is recorded for an image. If that is
        another one, as when the image was cancelled meanwhile, the object is deleted again.
        """
        if not isinstance(facts, Compressed | Reused):
            return self.fetch_again(job)
        _, extension = FILE_TYPES[facts.format]
        name = f"{job.request_id}/{job.product}-{job.index}.{extension}"
        stored = None
        try:
            async with self._threads.hold(priority=job.priority):
                started = time.monotonic()
                self.begin()
                # Asked only now: the wait may have been long, and the Eraser relies on this.
                if await self.parts.ledger.backlog.is_wanted(job.request_id):
                    stored = await self._store(name, facts)
        except (FileNotFoundError, ServiceError) as error:
            return await self.failed(job, error, facts)
        if stored is None:
            await self.discard(facts)
            return await self.closed(job)
        end = Completed(
            output=name,
            checksum=stored.checksum,
            bytes_in=facts.bytes_in,
            bytes_out=stored.size_bytes,
            format=facts.format,
            width=facts.width,
            height=facts.height,
            note=facts.note,
            ms={**facts.ms, "upload": round((time.monotonic() - started) * 1000)},
            saved="reused" if isinstance(facts, Reused) else None,
        )
        ended, _ = await asyncio.gather(self.finish(job, end), self._remember(facts.source, end))
        await self.discard(facts)
        if ended.unwanted:
            with contextlib.suppress(ServiceError):  # else the Eraser finds it
                await self.parts.bucket.delete([name])
            # That it is remembered does no harm: whoever wants to copy it finds it gone.
            return self.ended(job, "image.unwanted", due=ended.due)
        if ended.written:
            metrics = self.parts.metrics
            metrics.image_bytes.labels("in").inc(facts.bytes_in)
            metrics.image_bytes.labels("out").inc(stored.size_bytes)
        fields = {"bytes_in": facts.bytes_in, "bytes_out": stored.size_bytes, "note": facts.note}
        return self.ended(job, "image.uploaded", due=ended.due, **fields)

    async def _store(self, name: str, facts: Compressed | Reused) -> Stored:
        """Create the object.

        Raises:
            FileNotFoundError: what it should be made of is gone.
            ServiceError: UNAVAILABLE or STORAGE_REJECTED.
        """
        if isinstance(facts, Compressed):
            content_type, _ = FILE_TYPES[facts.format]
            spool = self.parts.spool
            with spool.holding(facts.file):
                path = spool.path(facts.file)
                return await self.parts.bucket.create(name, path, content_type, facts.note)
        stored = await self.parts.bucket.copy(facts.output, name)
        if stored is None:
            await self.parts.ledger.sources.forget(facts.source.key)
            raise FileNotFoundError(facts.output)
        return stored

    async def _remember(self, source: Source | None, end: Completed) -> None:
        if source:
            with contextlib.suppress(ServiceError):  # only a memory
                await self.parts.ledger.sources.remember(source, end)
