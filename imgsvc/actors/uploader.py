"""Uploader: from a spool file to the bucket, and the image's end to the ledger."""

from __future__ import annotations

import contextlib
import time
from typing import ClassVar

from imgsvc.actors.base import ImageActor, Verdict
from imgsvc.errors import ErrorCode, ServiceError
from imgsvc.ledger import Completed
from imgsvc.mailboxes import Facts, upload_lane
from imgsvc.messages import Compressed, ImageJob
from imgsvc.model import FILE_TYPES


class Uploader(ImageActor):
    """Takes images whose result lies in this replica's spool."""

    name: ClassVar[str] = "uploader"
    own_lane = True

    def mailbox(self) -> str:
        """This replica's lane."""
        return upload_lane(self.parts.mailboxes.replica)

    def capacity(self) -> int:
        """Twice the bucket's threads, so that none waits for the ledger."""
        return self.parts.settings.gcs.threads * 2

    async def handle(self, job: ImageJob, facts: Facts) -> Verdict:
        """Store one result and record it; the last image of a request makes its webhook due.

        Twice is safe because an object is created only if it is not there, and adopted if it
        is, and because the ledger keeps the first end of an image that is written. If that is
        another one, as of an image that was cancelled meanwhile, the object goes again.
        """
        if not isinstance(facts, Compressed):
            return self.again(job)
        place = (job.request_id, job.product, job.index)
        if await self.parts.ledger.work(*place, job.turn) is None:
            await self.parts.spool.remove(facts.file)
            return await self.closed(job)
        content_type, extension = FILE_TYPES[facts.format]
        bucket, spool = self.parts.bucket, self.parts.spool
        name = f"{job.request_id}/{job.product}-{job.index}.{extension}"
        started = time.monotonic()
        try:
            stored = await bucket.create(name, spool.path(facts.file), content_type, facts.note)
        except FileNotFoundError:
            return self.again(job)
        except ServiceError as error:
            if error.code is ErrorCode.UNAVAILABLE:
                raise
            await spool.remove(facts.file)
            return await self.fail(job, error.code, error.detail, facts.ms)
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
        )
        ended = await self.parts.ledger.finish(*place, end, job.turn)
        await spool.remove(facts.file)
        if ended.unwanted:
            with contextlib.suppress(ServiceError):  # else the Eraser finds it
                await bucket.delete([name])
            return self.ended(job, due=ended.due, event="image.unwanted", told={})
        metrics = self.parts.metrics
        metrics.images.labels("COMPLETED", "").inc()
        metrics.image_bytes.labels("in").inc(facts.bytes_in)
        metrics.image_bytes.labels("out").inc(stored.size_bytes)
        told = {"bytes_in": facts.bytes_in, "bytes_out": stored.size_bytes, "note": facts.note}
        return self.ended(job, due=ended.due, event="image.uploaded", told=told)
