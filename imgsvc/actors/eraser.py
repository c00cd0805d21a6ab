"""Eraser: removes from the bucket and the ledger what nobody wants any more.

It erases requests that a client asked to erase, and expired ones. Such requests, and cancelled ones,
may leave orphans in the bucket: a replica may have been lost after it stored an object and before it
could delete that again. So once no upload can still be under way, the Eraser sweeps their objects.

If the bucket refuses to delete something, such as an object under a hold, that request is tried again
later. Others do not wait for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from imgsvc.actors.actor import Actor
from imgsvc.actors.parts import Parts
from imgsvc.domain.errors import ErrorCode
from imgsvc.mailboxes.keys import ERASING
from imgsvc.storage.bucket_errors import BucketError

_AT_ONCE = 10  # requests, and more if they belong to more tenants
_BATCH = 100  # objects or products of one request
_LEAD_S = 15.0
_REMEMBERED = 10_000
_IDLE_S = 1.0


class Eraser(Actor):
    """Erases in the background: a batch of each request in turn, at a limited rate."""

    name: ClassVar[str] = "eraser"

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        gcs, self._rate = parts.settings.gcs, parts.settings.retention.erase_per_s
        self._keep_days = parts.settings.retention.days
        # The longest time that storing an object takes.
        self._upload_s = gcs.retry_s + gcs.timeout_s
        self._seen: dict[str, str] = {}  # request -> the last object that was seen

    async def run(self) -> None:
        """Erase until stopped."""
        await self.repeat(self._erase_round)
        with contextlib.suppress(Exception):  # then the lead expires by itself
            await self.parts.mailboxes.lead.release(ERASING)

    async def _erase_round(self) -> float:
        """Erase and sweep a batch of each request; returns the seconds until there may be more."""
        if not await self.parts.mailboxes.lead.hold(ERASING, _LEAD_S):
            self._seen.clear()
            return _IDLE_S
        ledger = self.parts.ledger
        for request_id in await ledger.erasures.expire(self._keep_days, _AT_ONCE):
            self.log.info("request.expired", request_id=request_id)
        erasing = await ledger.erasures.due(_AT_ONCE)
        uploads_ended = datetime.now(UTC) - timedelta(seconds=self._upload_s)
        sweeping = await ledger.leftovers.due(uploads_ended, _AT_ONCE)
        done = [await self._try(each, self._erase_some) for each in erasing]
        for each, erased in sweeping.items():
            done.append(await self._try(each, self._sweep_erased if erased else self._sweep_some))
        return 0.0 if any(done) else _IDLE_S

    async def _try(self, request_id: str, step: Callable[[str], Awaitable[None]]) -> bool:
        """Do one step, and put the request off if the bucket fails; False if stopping."""
        if self.stopping.is_set():
            return False
        try:
            await step(request_id)
        except BucketError as error:
            wait_s = await self.parts.ledger.refusals.refuse(
                request_id, error.detail, passing=error.code is ErrorCode.UNAVAILABLE
            )
            self.log.warning(
                "request.not_erased", request_id=request_id, reason=error.detail, wait_s=wait_s
            )
        return True

    async def _erase_some(self, request_id: str) -> None:
        """Erase products before objects, so that an object stored meanwhile is found unwanted."""
        gone = await self.parts.ledger.erasures.erase_products(request_id, _BATCH)
        if not gone:
            gone, all_gone = await self._erase_objects(request_id)
            if all_gone:
                await self.parts.mailboxes.forget(request_id)
                await self.parts.ledger.erasures.erase_request(request_id)
                self.log.info("request.erased", request_id=request_id)
        await self._slow_down(gone)

    async def _erase_objects(self, request_id: str) -> tuple[int, bool]:
        """Delete a batch of objects; returns how many, and whether none is left.

        Raises:
            BucketError: some were kept. The next batch comes after them, and then all are tried again.
        """
        seen = self._seen.pop(request_id, "")
        names = await self.parts.bucket.names(f"{request_id}/", _BATCH, after=seen)
        more = len(names) == _BATCH
        try:
            await self.parts.bucket.delete(names)
        except BucketError:
            if more:
                self._remember(request_id, names[-1])
            raise
        if more:
            self._remember(request_id, seen)
        return len(names), not more and not seen

    def _remember(self, request_id: str, name: str) -> None:
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()  # those requests begin again with their first object
        self._seen[request_id] = name

    async def _sweep_erased(self, request_id: str) -> None:
        """Sweep products as well: a repeated upload may have written some after the erasure."""
        if late := await self.parts.ledger.erasures.erase_products(request_id, _BATCH):
            await self._slow_down(late)
        else:
            await self.parts.mailboxes.forget(request_id)
            await self._sweep_some(request_id)

    async def _sweep_some(self, request_id: str) -> None:
        ledger = self.parts.ledger
        seen = self._seen.pop(request_id, "")
        names = await self.parts.bucket.names(f"{request_id}/", _BATCH, after=seen)
        unwanted = await ledger.leftovers.unwanted(request_id, names)
        await self.parts.bucket.delete(unwanted)
        if unwanted:
            self.log.warning("bucket.orphans", request_id=request_id, objects=unwanted)
        if len(names) < _BATCH:
            await ledger.leftovers.mark_swept(request_id)
        else:
            self._remember(request_id, names[-1])
        await self._slow_down(len(unwanted))

    async def _slow_down(self, erased: int) -> None:
        await self.pause(erased / self._rate)
