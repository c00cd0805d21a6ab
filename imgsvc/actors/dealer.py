"""Dealer: from the ledger to the mailboxes, fairly and never too much at once.

It also carries out what clients wish of a request: to work on it again, or to cancel it.

And it is the reconciler. Putting work that is in flight already does nothing, so the dealer simply
goes through the open requests again and again: whatever the ledger says is not finished and no
mailbox knows is dealt once more, be it new or lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection
from dataclasses import replace
from typing import ClassVar

from imgsvc.actors.base import Actor, Parts
from imgsvc.actors.table import Hand, Table
from imgsvc.domain.errors import ServiceError
from imgsvc.domain.messages import ImageJob, WebhookJob
from imgsvc.ledger import OpenImages
from imgsvc.mailboxes.mailboxes import DEALING, FETCH, FETCH_PRIORITY, NOTIFY

_PAGE = 100  # products read at once
_REQUESTS = 1000
_WEBHOOKS = 500
_WISHES = 10  # of one tenant; some of each is carried out in one round
_LEAD_S, _LEAD_AGAIN_S = 5.0, 1.0
_IDLE_S = 1.0
_FULL_S = 0.25
_PUT_OFF = 4  # windows of messages of one request that may wait for their origin
_SOON_S = 0.01
_FEW = 4  # images; of a request that has no more to be dealt, so many have priority


class Dealer(Actor):
    """Deals one image of each tenant in turn, and of each of their open requests."""

    name: ClassVar[str] = "dealer"

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._bell = parts.mailboxes.bell()
        self._table = Table()
        self._leads = False
        self._lead_again_at = 0.0  # when the lead is to be asked for, or renewed
        self._look_at = 0.0  # when the ledger is to be asked for what is new, if nobody rings

    async def run(self) -> None:
        """Deal until stopped."""
        away = 0
        try:
            while not self.stopping.is_set():
                try:
                    wait_s = await self._deal_once()
                    if not self._leads:
                        await self.pause(wait_s)
                    elif await self._bell.wait(wait_s) == "news":
                        self._look_at = 0.0
                except ServiceError as error:
                    away += 1
                    await self.wait_out(error, away)
                else:
                    away = 0
            if self._leads:
                with contextlib.suppress(Exception):  # then the lead expires by itself
                    await self.parts.mailboxes.stop_leading(DEALING)
        finally:
            await self._bell.close()

    async def _deal_once(self) -> float:
        """One round; returns the seconds after which another makes sense if nobody rings."""
        if time.monotonic() >= self._lead_again_at and not await self._lead():
            return _IDLE_S
        if time.monotonic() < self._look_at:  # a mailbox runs low and has to be filled
            return await self._deal_images()
        await self._look_for_requests()
        wait_s = await self._deal_images()  # before anything else: somebody may wait for these
        await self._deal_webhooks()
        look_again_s = await self._carry_out_wishes()
        self._look_at = time.monotonic() + look_again_s
        return min(look_again_s, wait_s)

    async def _lead(self) -> bool:
        """Become or stay the one who deals; whether that is so."""
        led, self._leads = self._leads, await self.parts.mailboxes.lead(DEALING, _LEAD_S)
        if not self._leads:
            self._table.clear()
            self._look_at = 0.0
            return False
        self._lead_again_at = time.monotonic() + _LEAD_AGAIN_S
        if not led:
            self.log.info("dealer.leads")
        return True

    async def _carry_out_wishes(self) -> float:
        """Some of what clients wish of requests; seconds until there may be more to see."""
        ledger = self.parts.ledger
        reopening, cancelling = await asyncio.gather(
            ledger.to_reopen(_WISHES), ledger.to_cancel(_WISHES)
        )
        more = [await ledger.reopen(request_id) for request_id in reopening]
        for hand in self._table:
            if hand.request_id in reopening:
                self._table.leave(hand)
        more += [await ledger.cancel(request_id) for request_id in cancelling]
        if any(more) or len(more) >= _WISHES:
            return _SOON_S
        return _FULL_S if more else _IDLE_S  # what was opened again is to be dealt

    async def _deal_webhooks(self) -> None:
        due = await self.parts.ledger.due_webhooks(_WEBHOOKS)
        jobs = [WebhookJob(request_id=i, call_id=call) for i, call in due.items()]
        await self.parts.mailboxes.deal(NOTIFY, jobs, bounded=False)

    async def _look_for_requests(self) -> None:
        found = {each.id: each for each in await self.parts.ledger.open_requests(_REQUESTS)}
        for hand in self._table:
            if not found.pop(hand.request_id, None):
                self._table.leave(hand)
        # Marked first: if that fails now, no request must look as if it was.
        await self.parts.ledger.start(list(found))
        for new in found.values():
            self._table.seat(Hand(new.id, new.call_id, new.quota_tenant, new.products))

    async def _deal_images(self) -> float:
        """Deal in turn until the mailbox is full; seconds until there may be more to deal."""
        window = self.parts.settings.redis.window
        while True:
            # What waits for its origin is in Redis: of one request only so much, however large.
            put_off = await self.parts.mailboxes.put_off(FETCH)
            held = {request for request, count in put_off.items() if count >= window * _PUT_OFF}
            ready = {
                hand
                for hand in self._table
                if hand.request_id not in held and await self._fill(hand)
            }
            if not ready:
                if any(hand.is_read_on for hand in self._table if hand.request_id not in held):
                    return _SOON_S  # none on this page; somebody new may come before the next
                return _FULL_S if any(hand.request_id in held for hand in self._table) else _IDLE_S
            await self._deal_to(FETCH_PRIORITY, {hand for hand in ready if hand.jobs[0].priority})
            # What has no room there takes its turn among all others.
            if not await self._deal_to(FETCH, {hand for hand in ready if hand.jobs}):
                return _FULL_S

    async def _deal_to(self, mailbox: str, hands: Collection[Hand]) -> bool:
        """Deal a window of jobs from these hands, in turn; whether there was room for all of it."""
        drawn = self._table.draw(hands, self.parts.settings.redis.window)
        jobs = [job for _, job in drawn]
        seen, _ = await self.parts.mailboxes.deal(mailbox, jobs, bounded=True)
        self._table.served(drawn, seen)
        return seen == len(drawn)

    async def _fill(self, hand: Hand) -> bool:
        """Read on in the ledger when a hand is empty; whether it holds jobs."""
        if hand.jobs:
            return True
        if hand.rest_until:
            if time.monotonic() < hand.rest_until:
                return False
            hand.restart()
        after = hand.product
        page = await self._open_images(hand, after)
        if not page:
            if hand.product < 0 and await self.parts.ledger.complete(hand.request_id):
                # Its last image was finished by someone who died before closing the request.
                await self._deal_webhooks()
            hand.rest_until = time.monotonic() + self.parts.settings.redis.reconcile_s
            return False
        hand.product = page[-1].product
        last = max(after + _PAGE, hand.product) >= hand.products - 1
        few = last and sum(len(open_.turns) for open_ in page) <= _FEW
        hand.jobs.extend(
            ImageJob(
                request_id=hand.request_id,
                call_id=hand.call_id,
                product=open_.product,
                index=index,
                turn=turn,
                copied=index in open_.copied,
                priority=few,
            )
            for open_ in page
            for index, turn in open_.turns.items()
        )
        return bool(hand.jobs)

    async def _open_images(self, hand: Hand, after: int) -> list[OpenImages]:
        if after >= hand.products - 1:
            return []  # that was its last product
        page = await self.parts.ledger.open_images(hand.request_id, after, _PAGE)
        # While the message of an image is on its way its copies are the Copier's.
        originals = {
            f"{hand.request_id}/{open_.originals[i]}"
            for open_ in page
            for i in open_.turns.keys() & open_.originals.keys()
        }
        waited_for = await self.parts.mailboxes.in_flight(originals)
        return [
            replace(
                open_,
                turns={
                    i: turn
                    for i, turn in open_.turns.items()
                    if f"{hand.request_id}/{open_.originals.get(i)}" not in waited_for
                },
            )
            for open_ in page
        ]
