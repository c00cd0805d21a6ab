"""Compressor: encodes a spool file into a smaller spool file, in the worker processes."""

from __future__ import annotations

from typing import ClassVar

from imgsvc.actors.image_actor import ImageActor
from imgsvc.actors.verdicts import HandOff, Verdict
from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.messages import Compressed, Fetched, ImageJob
from imgsvc.imaging.tasks import Result, Task
from imgsvc.mailboxes.envelope import Facts
from imgsvc.mailboxes.keys import compress_lane, upload_lane

_RUNS = 2  # of an image that kills its worker: the first time may have been bad luck


class Compressor(ImageActor):
    """Takes images whose source lies in this replica's spool."""

    name: ClassVar[str] = "compressor"
    own_lane = True

    def mailbox(self) -> str:
        """This replica's lane."""
        return compress_lane(self.parts.mailboxes.replica)

    def capacity(self) -> int:
        """As many as the Fetchers may have sent, so that those with priority can go first."""
        settings = self.parts.settings
        return (
            settings.fetch.ahead + settings.fetch.concurrency + 2 * settings.redis.priority_window
        )

    async def handle(self, job: ImageJob, facts: Facts) -> Verdict:
        """Encode one image and pass it to this replica's Uploader.

        Twice is safe because the source stays until the result is in the next lane, and each
        run writes a file of its own.
        """
        if not isinstance(facts, Fetched):
            return self.fetch_again(job)
        if not await self.parts.ledger.backlog.is_wanted(job.request_id):
            await self.discard(facts)
            return await self.closed(job)
        target = self.parts.spool.new_name()
        try:
            result = await self._encode(facts, target)
        except (FileNotFoundError, ServiceError) as error:
            return await self.failed(job, error, facts)
        self.parts.spool.count(target, result.bytes_out)
        await self.discard(facts)
        compressed = Compressed(
            file=target,
            bytes_in=facts.bytes_in,
            bytes_out=result.bytes_out,
            format=result.format,
            width=result.width,
            height=result.height,
            note=result.note,
            source=facts.source,
            ms={**facts.ms, "compress": result.ms},
        )
        lane = upload_lane(self.parts.mailboxes.replica)
        fields = compressed.model_dump(exclude={"file", "ms", "source"})
        return HandOff(lane, job, compressed, event="image.compressed", fields=fields)

    async def _encode(self, source: Fetched, target: str) -> Result:
        """Encode a file into another; if that fails, the other one is removed.

        Raises:
            FileNotFoundError: the source is gone.
            ServiceError: UNAVAILABLE, or with the code of an image that cannot be encoded.
        """
        spool, codec = self.parts.spool, self.parts.codec
        task = Task(spool.path(source.file), spool.path(target), source.recipe)
        try:
            for _ in range(_RUNS - 1):
                try:
                    return await codec.encode(task, self.begin)
                except ServiceError as error:
                    if error.code is not ErrorCode.CODEC_CRASHED:
                        raise
            return await codec.encode(task, self.begin)
        except BaseException:
            await spool.remove(target)
            raise
