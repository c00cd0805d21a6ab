"""A mailbox actor whose messages are images."""

from __future__ import annotations

from collections.abc import Mapping

from imgsvc.actors.mailbox_actor import MailboxActor
from imgsvc.actors.verdicts import Done, HandOff, Verdict
from imgsvc.domain.errors import ErrorCode
from imgsvc.domain.messages import ImageJob, Times, WebhookJob
from imgsvc.ledger import Failed
from imgsvc.mailboxes.keys import COPIES, FETCH, NOTIFY


class ImageActor(MailboxActor[ImageJob]):
    """A mailbox actor whose messages are images."""

    jobs = ImageJob

    async def fail(
        self,
        job: ImageJob,
        code: ErrorCode,
        detail: str,
        ms: Times | None = None,
        cause: str | None = None,
    ) -> Verdict:
        """Write that an image failed, and pass on what that leads to; the cause is but logged."""
        failed = Failed(code, detail, ms or {})
        ended = await self.parts.ledger.finish(
            job.request_id, job.product, job.index, failed, job.turn
        )
        if ended.written:
            self.parts.metrics.images.labels("FAILED", code.name).inc()
        fields = {"code": code.name, "detail": detail} | ({"cause": cause} if cause else {})
        return self.ended(job, due=ended.due, event="image.failed", fields=fields)

    async def give_up(self, job: ImageJob, reason: str) -> None:
        """Record that an image failed for reasons of ours; the reason stays with us."""
        self.log.error("image.given_up", reason=reason)
        await self.fail(job, ErrorCode.INTERNAL, ErrorCode.INTERNAL.message)

    async def closed(self, job: ImageJob) -> Verdict:
        """What to do about an image that is not open any more.

        Whoever closed it may have died before looking whether it was the last one.
        """
        due = await self.parts.ledger.complete(job.request_id)
        return self.ended(job, due=due, event="image.void", fields={})

    def ended(
        self, job: ImageJob, *, due: bool, event: str, fields: Mapping[str, object]
    ) -> Verdict:
        """The verdict on an image that is terminal; ``due`` if a webhook is, which no copy is then."""
        if due:
            webhook = WebhookJob(request_id=job.request_id, call_id=job.call_id)
            return HandOff(NOTIFY, webhook, event=event, fields=fields)
        if job.copied:
            return HandOff(COPIES, job, event=event, fields=fields)
        return Done(event=event, fields=fields)

    def again(self, job: ImageJob) -> Verdict:
        """The verdict on an image whose file is gone: it is fetched once more."""
        return HandOff(FETCH, job, event="image.file_gone")
