"""Copier: gives the end of an image to the others of its request that have the same address."""

from __future__ import annotations

from typing import ClassVar

from imgsvc.actors.image_actor import ImageActor
from imgsvc.actors.parts import Parts
from imgsvc.actors.verdicts import HandOff, Verdict
from imgsvc.domain.messages import ImageJob
from imgsvc.ledger import Completed, CopiesEnded, Shared
from imgsvc.mailboxes.envelope import Facts
from imgsvc.mailboxes.keys import COPIES
from imgsvc.runtime.fair_semaphore import FairSemaphore

_PAGE = 100  # copies that end together; then it is the turn of another image's
_PAGES = 32  # on their way at a time, three quarters of them one tenant's at most
_IN_HAND = 1000  # images with copies: those of tenants who have few are found among them


class Copier(ImageActor):
    """Takes images that have ended and have copies: a page of each tenant's in turn, however many."""

    name: ClassVar[str] = "copier"
    most_at_once = 8

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._pages = FairSemaphore(_PAGES, _PAGES - _PAGES // 4)

    def mailbox(self) -> str:
        """Shared: any replica may write these ends."""
        return COPIES

    def capacity(self) -> int:
        """More than there are pages on their way: most only wait for their tenant's turn."""
        return _IN_HAND

    async def handle(self, job: ImageJob, facts: Facts) -> Verdict:  # noqa: ARG002
        """End the copies of one image.

        Twice is safe because only copies that are open are ended, each by a conditional update.
        """
        place = (job.request_id, job.product, job.index)
        shared = await self.parts.ledger.shared(*place, job.turn)
        copies, due = 0, False
        for start in range(0, len(shared.copies) if shared else 0, _PAGE):
            assert shared is not None  # noqa: S101 - else there is no page
            async with self._pages.hold(shared.quota_tenant):
                if self.stopping.is_set():
                    return HandOff(COPIES, job, event="copies.left", fields={"copies": copies})
                self.begin()
                page = await self.parts.ledger.end_copies(shared, slice(start, start + _PAGE))
            self._count(shared, page)
            copies, due = copies + page.images, due or page.due
        if not copies:  # whoever ended them may have died before looking whether it was all
            due = await self.parts.ledger.complete(job.request_id)
        done = job.model_copy(update={"copied": False})
        return self.ended(done, due=due, event="copies.ended", fields={"copies": copies})

    def _count(self, shared: Shared, page: CopiesEnded) -> None:
        metrics = self.parts.metrics
        if isinstance(shared.end, Completed):
            metrics.images.labels("COMPLETED", "").inc(page.images)
            metrics.images_saved.labels("shared").inc(page.images)
        else:
            metrics.images.labels("FAILED", shared.end.code.name).inc(page.images)
