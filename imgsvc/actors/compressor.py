"""Compressor: from a spool file to a smaller spool file, in the worker processes."""

from __future__ import annotations

from typing import ClassVar

from imgsvc.actors.image_actor import ImageActor
from imgsvc.actors.verdicts import HandOff, Verdict
from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.messages import Compressed, Fetched, ImageJob
from imgsvc.imaging.tasks import Result, Task
from imgsvc.mailboxes.envelope import Facts
from imgsvc.mailboxes.keys import compress_lane, upload_lane

# An image that kills its worker gets one more chance; the first may have been bad luck.
_RUNS = 2


class Compressor(ImageActor):
    """Takes images whose bytes lie in this replica's spool."""

    name: ClassVar[str] = "compressor"
    own_lane = True

    def mailbox(self) -> str:
        """This replica's lane."""
        return compress_lane(self.parts.mailboxes.replica)

    def capacity(self) -> int:
        """All that the Fetchers may have put there: those with priority can go first."""
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
            return self.again(job)
        spool = self.parts.spool
        if not await self.parts.ledger.is_wanted(job.request_id):
            await spool.remove(facts.file)
            return await self.closed(job)
        target = spool.new_name()
        task = Task(spool.path(facts.file), spool.path(target), facts.recipe)
        try:
            result = await self._encode(task)
        except FileNotFoundError:
            await spool.remove(target)
            return self.again(job)
        except ServiceError as error:
            await spool.remove(target)
            if error.code is ErrorCode.UNAVAILABLE:
                raise
            await spool.remove(facts.file)
            return await self.fail(job, error.code, error.detail, facts.ms)
        except BaseException:
            await spool.remove(target)
            raise
        spool.count(target, result.bytes_out)
        await spool.remove(facts.file)
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

    async def _encode(self, task: Task) -> Result:
        for _ in range(_RUNS - 1):
            try:
                return await self.parts.codec.encode(task, self.begin)
            except ServiceError as error:
                if error.code is not ErrorCode.CODEC_CRASHED:
                    raise
        return await self.parts.codec.encode(task, self.begin)
