"""Dealer: deals work from the ledger to the mailboxes, fairly and never too much at once.

It also carries out the commands of clients: to retry a request, or to cancel it.

And it reconciles the mailboxes with the ledger. Dealing work that is in flight already does nothing. So
the dealer simply goes through the open requests again and again, and whatever is unfinished in the
ledger and unknown to the mailboxes is dealt, whether it is new or was lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection
from dataclasses import replace
from typing import ClassVar

from imgsvc.actors.actor import Actor
from imgsvc.actors.fair_queue import FairQueue, RequestQueue
from imgsvc.actors.parts import Parts
from imgsvc.domain.messages import ImageJob, WebhookJob
from imgsvc.ledger import OpenImages
from imgsvc.mailboxes.keys import DEALING, FETCH, FETCH_PRIORITY, NOTIFY

_PAGE = 100  # products read at once
_REQUESTS = 1000
_WEBHOOKS = 500
_COMMANDS = 10  # of each kind in one round, and of one tenant
_LEAD_S, _LEAD_AGAIN_S = 5.0, 1.0
_IDLE_S = 1.0
_FULL_S = 0.25
_PUT_OFF = 4  # windows: so many messages of one request may wait for their origin
_SOON_S = 0.01
_FEW = 4  # images: if a request has no more left to deal, they have priority


class Dealer(Actor):
    """Deals one image of each tenant in turn, and of each of their open requests."""

    name: ClassVar[str] = "dealer"

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._bell = parts.mailboxes.bell.listener()
        self._requests = FairQueue()
        self._leads = False
        self._lead_again_at = 0.0  # when to ask for the lead, or renew it
        self._look_at = 0.0  # when to look into the ledger, if the bell does not ring before

    async def run(self) -> None:
        """Deal until stopped."""
        try:
            await self.repeat(self._deal_and_wait)
            if self._leads:
                with contextlib.suppress(Exception):  # then the lead expires by itself
                    await self.parts.mailboxes.lead.release(DEALING)
        finally:
            await self._bell.close()

    async def _deal_and_wait(self) -> float:
        wait_s = await self._deal_round()
        if not self._leads:
            return wait_s
        if await self._bell.wait(wait_s) == "news":
            self._look_at = 0.0
        return 0.0

    async def _deal_round(self) -> float:
        """One round; returns the seconds to wait before the next, unless the bell rings."""
        if time.monotonic() >= self._lead_again_at and not await self._lead():
            return _IDLE_S
        if time.monotonic() < self._look_at:  # the bell rang because a mailbox runs low
            return await self._deal_images()
        await self._look_for_requests()
        wait_s = await self._deal_images()  # first of all: a client may wait for these
        await self._deal_webhooks()
        look_again_s = await self._carry_out_commands()
        self._look_at = time.monotonic() + look_again_s
        return min(look_again_s, wait_s)

    async def _lead(self) -> bool:
        """Become or stay the replica that deals; returns whether this one does."""
        led, self._leads = self._leads, await self.parts.mailboxes.lead.hold(DEALING, _LEAD_S)
        if not self._leads:
            self._requests.clear()
            self._look_at = 0.0
            return False
        self._lead_again_at = time.monotonic() + _LEAD_AGAIN_S
        if not led:
            self.log.info("dealer.leads")
        return True

    async def _carry_out_commands(self) -> float:
        """Retry and cancel some requests; returns the seconds until there may be more to do."""
        ledger = self.parts.ledger
        reopening, cancelling = await asyncio.gather(
            ledger.commands.pending_retries(_COMMANDS),
            ledger.commands.pending_cancellations(_COMMANDS),
        )
        more = [await ledger.commands.carry_out_retry(request_id) for request_id in reopening]
        for queue in self._requests:
            if queue.request_id in reopening:
                self._requests.remove(queue)
        more += [
            await ledger.commands.carry_out_cancellation(request_id) for request_id in cancelling
        ]
        if any(more) or len(more) >= _COMMANDS:
            return _SOON_S
        return _FULL_S if more else _IDLE_S  # the images of a retried request are to be dealt

    async def _deal_webhooks(self) -> None:
        due = await self.parts.ledger.deliveries.due(_WEBHOOKS)
        jobs = [WebhookJob(request_id=i, call_id=call) for i, call in due.items()]
        await self.parts.mailboxes.streams.deal(NOTIFY, jobs, bounded=False)

    async def _look_for_requests(self) -> None:
        found = {each.id: each for each in await self.parts.ledger.backlog.requests(_REQUESTS)}
        for queue in self._requests:
            if not found.pop(queue.request_id, None):
                self._requests.remove(queue)
        # Before they are added: if this fails, they are found again as new.
        await self.parts.ledger.backlog.start(list(found))
        for new in found.values():
            self._requests.add(RequestQueue(new.id, new.call_id, new.quota_tenant, new.products))

    async def _deal_images(self) -> float:
        """Deal in turn until the mailbox is full; returns the seconds to wait before more."""
        window = self.parts.settings.redis.window
        while True:
            # Messages that wait for their origin lie in Redis. So one request has only so many there.
            put_off = await self.parts.mailboxes.delayed.counts(FETCH)
            held = {request for request, count in put_off.items() if count >= window * _PUT_OFF}
            free = [queue for queue in self._requests if queue.request_id not in held]
            ready = {queue for queue in free if await self._fill(queue)}
            if not ready:
                if any(queue.has_more_pages for queue in free):
                    return _SOON_S  # this page had none; look for new requests before the next
                waits = any(queue.request_id in held for queue in self._requests)
                return _FULL_S if waits else _IDLE_S
            await self._deal_to(
                FETCH_PRIORITY, {queue for queue in ready if queue.jobs[0].priority}
            )
            # What the priority mailbox has no room for takes its turn among all others.
            if not await self._deal_to(FETCH, {queue for queue in ready if queue.jobs}):
                return _FULL_S

    async def _deal_to(self, mailbox: str, queues: Collection[RequestQueue]) -> bool:
        """Deal a window of jobs in turn; returns whether there was room for all of them."""
        taken = self._requests.take(queues, self.parts.settings.redis.window)
        jobs = [job for _, job in taken]
        seen, _ = await self.parts.mailboxes.streams.deal(mailbox, jobs, bounded=True)
        self._requests.commit(taken, seen)
        return seen == len(taken)

    async def _fill(self, queue: RequestQueue) -> bool:
        """Read the next page of a queue that is empty; returns whether it holds jobs now."""
        if queue.jobs:
            return True
        if queue.rest_until:
            if time.monotonic() < queue.rest_until:
                return False
            queue.restart()
        after = queue.product
        page = await self._open_images(queue, after)
        if not page:
            if queue.product < 0 and await self.parts.ledger.completion.complete(queue.request_id):
                # The replica that finished its last image died before it closed the request.
                await self._deal_webhooks()
            queue.rest_until = time.monotonic() + self.parts.settings.redis.reconcile_s
            return False
        queue.product = page[-1].product
        last = max(after + _PAGE, queue.product) >= queue.products - 1
        few = last and sum(len(product.turns) for product in page) <= _FEW
        queue.jobs.extend(
            ImageJob(
                request_id=queue.request_id,
                call_id=queue.call_id,
                product=product.product,
                index=index,
                turn=turn,
                copied=index in product.copied,
                priority=few,
            )
            for product in page
            for index, turn in product.turns.items()
        )
        return bool(queue.jobs)

    async def _open_images(self, queue: RequestQueue, after: int) -> list[OpenImages]:
        if after >= queue.products - 1:
            return []  # that was its last product
        page = await self.parts.ledger.backlog.images(queue.request_id, after, _PAGE)
        # While an image is in flight, the Copier will see to its copies.
        originals = {
            f"{queue.request_id}/{product.originals[i]}"
            for product in page
            for i in product.turns.keys() & product.originals.keys()
        }
        waited_for = await self.parts.mailboxes.streams.in_flight(originals)
        return [
            replace(
                product,
                turns={
                    i: turn
                    for i, turn in product.turns.items()
                    if f"{queue.request_id}/{product.originals.get(i)}" not in waited_for
                },
            )
            for product in page
        ]
