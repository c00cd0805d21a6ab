"""Copier: gives the end of an image to the others of its request that have the same URL."""

from __future__ import annotations

from typing import ClassVar

from imgsvc.actors.image_actor import ImageActor
from imgsvc.actors.parts import Parts
from imgsvc.actors.verdicts import HandOff, Verdict
from imgsvc.domain.messages import ImageJob
from imgsvc.mailboxes.envelope import Facts
from imgsvc.mailboxes.keys import COPIES
from imgsvc.runtime.fair_semaphore import FairSemaphore

_PAGE = 100  # copies that end together; then another image has its turn
_PAGES = 32  # at a time, at most three quarters of them of one tenant
_IN_HAND = 1000  # images with copies: enough to find those of tenants that have few


class Copier(ImageActor):
    """Takes images that have ended and have copies; ends a page of copies of each tenant in turn."""

    name: ClassVar[str] = "copier"
    most_at_once = 8

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._pages = FairSemaphore(_PAGES, _PAGES - _PAGES // 4)

    def mailbox(self) -> str:
        """Shared: any replica may record these ends."""
        return COPIES

    def capacity(self) -> int:
        """More than there are pages at a time, because most only wait for their tenant's turn."""
        return _IN_HAND

    async def handle(self, job: ImageJob, facts: Facts) -> Verdict:  # noqa: ARG002
        """End the copies of one image.

        Twice is safe because only copies that are open are ended, each by a conditional update.
        """
        image = (job.request_id, job.product, job.index)
        shared = await self.parts.ledger.copies.shared_end(*image, job.turn)
        copies, due = 0, False
        if shared:
            for start in range(0, len(shared.copies), _PAGE):
                async with self._pages.hold(shared.quota_tenant):
                    if self.stopping.is_set():
                        return HandOff(COPIES, job, event="copies.left", fields={"copies": copies})
                    self.begin()
                    page = await self.parts.ledger.copies.end(shared, slice(start, start + _PAGE))
                self.count(shared.end, page.images)
                copies, due = copies + page.images, due or page.due
        if not copies:  # who ended them may have died before looking whether those were the last
            due = await self.parts.ledger.completion.complete(job.request_id)
        done = job.model_copy(update={"copied": False})
        return self.ended(done, "copies.ended", due=due, copies=copies)
