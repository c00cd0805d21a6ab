"""A mailbox actor whose messages are images, and the ways in which the work on an image ends."""

from __future__ import annotations

from imgsvc.actors.actor import is_away
from imgsvc.actors.mailbox_actor import MailboxActor
from imgsvc.actors.verdicts import Done, HandOff, Verdict
from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.messages import Compressed, Fetched, ImageJob, Times, WebhookJob
from imgsvc.ledger import Completed, Ended, Failed
from imgsvc.mailboxes.envelope import Facts
from imgsvc.mailboxes.keys import COPIES, FETCH, NOTIFY


class ImageActor(MailboxActor[ImageJob]):
    """A mailbox actor whose messages are images."""

    jobs = ImageJob

    async def failed(
        self,
        job: ImageJob,
        error: FileNotFoundError | ServiceError,
        facts: Facts = None,
        ms: Times | None = None,
    ) -> Verdict:
        """End an image whose work raised an error, or have it fetched again if its file is gone.

        Args:
            job: the image.
            error: what was raised.
            facts: what came with the message.
            ms: how long each stage took, if not as the facts say.

        Raises:
            ServiceError: the error, if something is away; the work is done again later.
        """
        if isinstance(error, FileNotFoundError):
            return self.fetch_again(job)
        if is_away(error):
            raise error
        await self.discard(facts)
        return await self._fail(job, error, ms or (facts.ms if facts else {}))

    async def give_up(self, job: ImageJob, reason: str) -> None:
        """Record that an image failed by a fault of ours. Only the log has the reason."""
        self.log.error("image.given_up", reason=reason)
        await self._fail(job, ServiceError(ErrorCode.INTERNAL), {})

    async def _fail(self, job: ImageJob, error: ServiceError, ms: Times) -> Verdict:
        ended = await self.finish(job, Failed(error.code, error.detail, ms))
        fields = {"code": error.code.name, "detail": error.detail}
        if error.cause:
            fields["cause"] = error.cause
        return self.ended(job, "image.failed", due=ended.due, **fields)

    async def closed(self, job: ImageJob) -> Verdict:
        """The verdict on an image that is not open any more.

        The replica that closed it may have died before it looked whether it was the last one.
        """
        due = await self.parts.ledger.completion.complete(job.request_id)
        return self.ended(job, "image.void", due=due)

    async def finish(self, job: ImageJob, end: Completed | Failed) -> Ended:
        """Record the end of an image, and count it."""
        image = (job.request_id, job.product, job.index)
        ended = await self.parts.ledger.images.finish(*image, end, job.turn)
        if ended.written:
            self.count(end)
        return ended

    def count(self, end: Completed | Failed, images: int = 1) -> None:
        """Count images that have ended like this in the metrics."""
        metrics = self.parts.metrics
        if isinstance(end, Failed):
            metrics.images.labels("FAILED", end.code.name).inc(images)
            return
        metrics.images.labels("COMPLETED", "").inc(images)
        if end.saved:
            metrics.images_saved.labels(end.saved).inc(images)

    def ended(self, job: ImageJob, event: str, *, due: bool, **fields: object) -> Verdict:
        """The verdict on an image that has ended.

        Args:
            job: the image.
            event: the name of the line that is logged.
            due: it was the last of its request, so that the webhook is due. No copy is open then.
            fields: what the line says.
        """
        if due:
            webhook = WebhookJob(request_id=job.request_id, call_id=job.call_id)
            return HandOff(NOTIFY, webhook, event=event, fields=fields)
        if job.copied:
            return HandOff(COPIES, job, event=event, fields=fields)
        return Done(event=event, fields=fields)

    def fetch_again(self, job: ImageJob) -> Verdict:
        """The verdict on an image whose file is gone."""
        return HandOff(FETCH, job, event="image.file_gone")

    async def discard(self, facts: Facts) -> None:
        """Remove the file that belongs to a message, if there is one."""
        if isinstance(facts, Fetched | Compressed):
            await self.parts.spool.remove(facts.file)
