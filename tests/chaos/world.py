"""What lies outside of the service, and remembers: the origin, the receiver."""

from __future__ import annotations

import asyncio
import time
import zlib
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.chaos.album import MISSING, Picture
from tests.conftest import SECRET
from tests.support import Handler, Origin, Receiver


@dataclass
class Posted:
    """One upload as the client made it, as often as it took to be accepted.

    Args:
        tag: in the serial number of each product, so that it is known again without an id.
        products: the pictures of each.
        origin: where they are.
        webhook: the receiver, if the client wants to be told.
        failures: codes that a good picture may fail with here besides.
        like: an earlier upload whose addresses it has, instead of its own.
        keyed: whether the client sends its tag as ``Idempotency-Key``.
        cycles: how often the request may be announced: once for each end, and for each replay.
        more: what the body says besides.
        again: pictures that were asked for again.
        mended: places of pictures that were missing at first.
        cancelled: whether the client was told so.
        erased: whether the client was told that it will be.
    """

    tag: str
    products: list[list[Picture]]
    origin: Origin
    webhook: Witness | None = None
    failures: frozenset[str] = frozenset()
    like: Posted | None = None
    keyed: bool = False
    cycles: int = 1
    more: dict[str, Any] = field(default_factory=dict)
    again: set[str] = field(default_factory=set)
    mended: set[tuple[int, int]] = field(default_factory=set)
    accepted: str | None = None
    cancelled: bool = False
    erased: bool = False

    def __post_init__(self) -> None:
        self._names: dict[tuple[int, int], str] = {}
        first: dict[Picture, str] = {}
        for number, pictures in enumerate(self.products):
            for index, one in enumerate(pictures):
                name = f"{self.tag}/{number}-{index}.jpg"
                # One address for the same picture.
                name = name if one == MISSING else first.setdefault(one, name)
                self._names[number, index] = name

    @property
    def images(self) -> int:
        """How many."""
        return sum(map(len, self.products))

    @property
    def body(self) -> dict[str, Any]:
        """As it is posted."""
        products = [
            {
                "serialNumber": f"{self.tag}.{number}",
                "productName": f"Product {number}",
                "inputUrls": [
                    self.origin.url(self.name(number, index)) for index in range(len(pictures))
                ],
            }
            for number, pictures in enumerate(self.products)
        ]
        told = {"webhookUrl": self.webhook.url} if self.webhook else {}
        return {"products": products, **told, **self.more}

    @property
    def call(self) -> dict[str, Any]:
        """What is sent, as aiohttp takes it."""
        headers = {"Idempotency-Key": self.tag} if self.keyed else {}
        return {"json": self.body, "headers": headers}

    def name(self, product: int, index: int) -> str:
        """Of a picture at the origin."""
        return self.like.name(product, index) if self.like else self._names[product, index]

    @property
    def names(self) -> set[str]:
        """Of all its pictures."""
        return {self.name(product, index) for product, index in self._names}

    def mend(self, with_: Picture) -> None:
        """Put a picture wherever one is missing; all that failed may be asked for again."""
        for number, pictures in enumerate(self.products):
            for index, one in enumerate(pictures):
                if one.error:
                    self.again.add(self.name(number, index))
                if one.data is None:
                    pictures[index] = with_
                    self.mended.add((number, index))
        self.lay_out()

    def lay_out(self) -> None:
        """Put the pictures where their addresses say."""
        for number, pictures in enumerate(self.products):
            for index, one in enumerate(pictures):
                if one.data is not None:
                    self.origin.add(self.name(number, index), one.data)


@dataclass(frozen=True)
class Fetch:
    """One time that a replica asked for a picture."""

    name: str
    by: str
    at: float = field(default_factory=time.monotonic)


class Album(Origin):
    """An origin that knows who asked when, and takes its time.

    Of half its pictures it can say that they have not changed.

    Args:
        delay_s: before each answer.
    """

    def __init__(self, delay_s: float = 0.0) -> None:
        super().__init__()
        self._delay_s = delay_s
        self.fetches: list[Fetch] = []

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        agent = request.headers.get("User-Agent", "")
        self.fetches.append(Fetch(request.match_info["path"], agent))
        await asyncio.sleep(self._delay_s)
        response = await super()._answer(request)
        if not isinstance(response, web.Response) or not isinstance(response.body, bytes):
            return response
        digest = zlib.crc32(response.body)
        if response.status == 200 and digest % 2:
            tag = f'"{digest}"'
            if request.headers.get("If-None-Match") == tag:
                return web.Response(status=304, headers={"ETag": tag})
            response.headers["ETag"] = tag
        return response

    def hold(self, name: str) -> Gate:
        """Have one picture's answers wait behind a gate."""
        gate = Gate(self._handlers[name])
        self.add(name, gate.pass_through)
        return gate


class Gate:
    """Calls wait here until it is opened.

    Args:
        handler: who answers them then.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._open = asyncio.Event()
        self.reached = asyncio.Event()

    def open(self) -> None:
        """Let all pass, also those to come."""
        self._open.set()

    async def pass_through(self, request: web.Request) -> web.StreamResponse:
        """Wait, then have it answered."""
        self.reached.set()
        await self._open.wait()
        return await self._handler(request)


@dataclass
class Told:
    """One webhook that arrived."""

    message_id: str
    genuine: bool
    data: dict[str, Any]
    status: int | None = None  # what was answered


class Witness(Receiver):
    """A receiver that checks each signature while it is fresh, and knows what it answered."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Told] = []

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body, headers = await request.read(), request.headers
        told = Told(headers["webhook-id"], _is_genuine(body, headers), orjson.loads(body)["data"])
        self.told.append(told)
        response = await super()._answer(request)
        told.status = response.status
        return response


def _is_genuine(body: bytes, headers: Any) -> bool:
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    try:
        Webhook(SECRET).verify(body, {name: headers[name] for name in names})
    except (WebhookVerificationError, KeyError):
        return False
    return True
