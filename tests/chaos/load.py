"""Clients: they post requests as long as there is room, and repeat what nobody answered.

Some pictures are in a request twice, and some requests are of the pictures of an earlier one. Now and
then clients change their mind: they cancel, erase, or put right what failed and retry it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace

import aiohttp

from tests.chaos import commands
from tests.chaos.album import MISSING, TEXT, Picture, cut_short, picture
from tests.chaos.fleet import Fleet
from tests.chaos.stack import Stack
from tests.chaos.world import Posted, Witness

Command = Callable[[], Awaitable[list[str]]]

_BAD = 0.08
_COPIED = 0.15  # of the images have the address of another one of their request
_REPEATED = 0.2  # of the uploads have the addresses of an earlier one ...
_EARLIER = 20  # ... of the last so many
_TOLD = 0.6
_SAFE = 0.5  # of the uploads carry a key, so that repeating one is safe
_WISHES = 0.3
_WISH_S = 4.0  # at most, from being accepted to a change of mind


class Load:
    """Keeps the service busy.

    Args:
        stack: where pictures are laid out.
        fleet: who is called.
        receiver: whom some requests are to be announced to.
        backlog: images that may be open at once.
        rng: decides what is posted.
    """

    def __init__(
        self, stack: Stack, fleet: Fleet, receiver: Witness, backlog: int, rng: random.Random
    ) -> None:
        self._stack = stack
        self._fleet = fleet
        self._receiver = receiver
        self._backlog = backlog
        self._rng = rng
        self._numbers = itertools.count(1)
        self._good: deque[Posted] = deque(maxlen=_EARLIER)
        self._calls: set[asyncio.Task[None]] = set()
        self.posted: list[Posted] = []
        self.violations: list[str] = []
        self.commands = 0  # that were granted or refused

    @property
    def images(self) -> int:
        """How many were posted."""
        return sum(one.images for one in self.posted)

    async def run(self, open_images: Callable[[], int], stop: asyncio.Event) -> None:
        """Post until told to stop; returns when all is accepted."""
        while not stop.is_set():
            if open_images() + sum(one.images for one in self.posted if not one.accepted) < (
                self._backlog
            ):
                self._post()
            await asyncio.sleep(0.05)
        await asyncio.gather(*self._calls)

    def _post(self) -> None:
        rng = self._rng
        like = rng.choice(self._good) if self._good and rng.random() < _REPEATED else None
        posted = self._stack.new_post(
            [list(pictures) for pictures in like.products] if like else self._products(),
            self._receiver if rng.random() < _TOLD else None,
            keyed=rng.random() < _SAFE,
            like=like,
        )
        self.posted.append(posted)
        if like:
            posted.again |= posted.names
        elif all(one.error is None for pictures in posted.products for one in pictures):
            self._good.append(posted)
        self._calls.add(asyncio.create_task(self._until_accepted(posted)))

    def _products(self) -> list[list[Picture]]:
        rng = self._rng
        before: list[Picture] = []
        products = []
        for _ in range(rng.randint(1, 4)):
            pictures = []
            for _ in range(rng.randint(1, 6)):
                copied = before and rng.random() < _COPIED
                pictures.append(rng.choice(before) if copied else self._picture())
                before.append(pictures[-1])
            products.append(pictures)
        return products

    def _picture(self) -> Picture:
        number = next(self._numbers)
        if self._rng.random() < _BAD:
            return self._rng.choice([replace(MISSING, number=number), TEXT, cut_short()])
        return picture(number)

    async def _until_accepted(self, posted: Posted) -> None:
        rng = random.Random(self._rng.random())
        await self._accepted(posted)
        if rng.random() < _WISHES:
            await asyncio.sleep(rng.uniform(0, _WISH_S))
            for command in rng.choice(self._plans(posted, rng)):
                self.commands += 1
                self.violations += await command()

    def _plans(self, posted: Posted, rng: random.Random) -> list[list[Command]]:
        """What clients may do about a request, step by step."""
        anyone = self._fleet.anyone
        mended = picture(next(self._numbers))
        codes = rng.choice([None, ["FETCH_STATUS"]])
        cancel = functools.partial(commands.cancel, anyone, posted)
        erase = functools.partial(commands.erase, anyone, posted)
        retry = functools.partial(commands.retry, anyone, posted, mended, codes)
        plans: list[list[Command]] = [[cancel], [erase], [cancel, erase]]
        if any(one.data is None for product in posted.products for one in product):
            plans = [[retry], [retry, cancel], [retry, erase]]
        return plans

    async def _accepted(self, posted: Posted) -> None:
        while not posted.accepted:
            if replica := self._fleet.anyone():
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    status, answer = await replica.call("POST", "/api/upload", **posted.call)
                    if status == 202:
                        posted.accepted = answer["requestId"]
                        return
                    if status != 503:
                        self.violations.append(f"an upload was answered {status} {answer}")
            await asyncio.sleep(0.2)
