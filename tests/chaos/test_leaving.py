"""A replica that is told to leave does so in time, whatever it waits for, and loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from io import BytesIO
from pathlib import Path

import pytest
from aiohttp import web
from PIL import Image
from yarl import URL

from imgsvc.embedded.servers import EmbeddedServers
from imgsvc.mailboxes.keys import NOTIFY
from tests.chaos.album import Picture, picture
from tests.chaos.invariants import check
from tests.chaos.proxy import BucketFault
from tests.chaos.replicas import Replica
from tests.chaos.stack import Stack, post, service
from tests.chaos.world import Gate, Posted, Witness
from tests.photos import photo

pytestmark = pytest.mark.long

GRACE_S = 1.0
LEAVES_S = GRACE_S + 4.0  # it cuts itself off after two seconds; the rest is for a busy machine
PATIENT = {
    "IMGSVC_HTTP__SHUTDOWN_S": str(GRACE_S),
    "IMGSVC_GCS__TIMEOUT_S": "60",
    "IMGSVC_GCS__RETRY_S": "120",
    "IMGSVC_WEBHOOK__TIMEOUT_S": "15",
    "IMGSVC_MONGO__TIMEOUT_MS": "5000",
}
Hang = Callable[[Stack, Posted, Witness], AbstractAsyncContextManager[Callable[[], object]]]


def large() -> Picture:
    """A picture whose result is so large that a thread uploads it: a TIFF, which is soon encoded."""
    whole = Image.new("RGB", (1600, 1600))
    for number, side in enumerate(("left", "right")):
        with Image.open(BytesIO(photo(f"motorcycle_{side}.png"))) as one:
            part = one.convert("RGB").resize((800, 800))
        for row in range(2):
            whole.paste(part, (800 * number, 800 * row))
    out = BytesIO()
    whole.save(out, "TIFF")
    return Picture(out.getvalue())


@contextlib.asynccontextmanager
async def origin(stack: Stack, posted: Posted, _: Witness) -> AsyncIterator[Callable[[], object]]:
    gate = stack.origin.hold(posted.name(0, 0))
    yield gate.reached.wait
    gate.open()


@contextlib.asynccontextmanager
async def bucket(stack: Stack, _: Posted, __: Witness) -> AsyncIterator[Callable[[], object]]:
    stack.gcs.harm_once(BucketFault.STALL)
    yield stack.gcs.stalled.wait
    stack.gcs.heal()


@contextlib.asynccontextmanager
async def receiver(_: Stack, __: Posted, witness: Witness) -> AsyncIterator[Callable[[], object]]:
    gate = Gate(_fine)
    witness.script = [gate.pass_through]
    yield gate.reached.wait
    gate.open()


async def _fine(_: web.Request) -> web.Response:
    return web.Response()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("hangs", "made"),
    [(origin, lambda: picture(2)), (bucket, large), (receiver, lambda: picture(2))],
)
async def test_it_leaves_in_time_while_something_outside_hangs(
    hangs: Hang, made: Callable[[], Picture], own_servers: EmbeddedServers, tmp_path: Path
) -> None:
    name = hangs.__name__
    async with service(own_servers, f"leaving-{name}", 6, tmp_path) as stack, Witness() as witness:
        leaves = stack.start(**PATIENT)
        assert await leaves.ready()
        posted = stack.new_post([[made()]], witness, more={"options": {"format": "keep"}})
        async with hangs(stack, posted, witness) as reached:
            assert await post(leaves, posted)
            await reached()
            leaves.process.terminate()
            assert await leaves.ended(LEAVES_S) == 0
        stays = stack.start(IMGSVC_WEBHOOK__TIMEOUT_S="3")
        assert await stays.ready()
        assert await check(stack, [posted], within_s=90) == []


@pytest.mark.asyncio(loop_scope="module")
async def test_it_ends_by_itself_in_time_when_it_gives_up_while_the_bucket_hangs(
    own_servers: EmbeddedServers, tmp_path: Path
) -> None:
    async with service(own_servers, "leaving-gave-up", 9, tmp_path) as stack:
        gives_up = stack.start(**PATIENT | {"IMGSVC_GCS__TIMEOUT_S": "600"})
        assert await gives_up.ready()
        posted = stack.new_post([[large()]], more={"options": {"format": "keep"}})
        stack.gcs.harm_once(BucketFault.STALL)
        assert await post(gives_up, posted)
        await stack.gcs.stalled.wait()
        await stack.redis.delete(NOTIFY)
        await stack.redis.set(NOTIFY, "what no mailbox is")
        assert await gives_up.ended(120) == 1
        told = [line["event"] for line in gives_up.events() if "event" in line]
        assert "actor.gave_up" in told
        assert "shutdown.overdue" not in told


@contextlib.asynccontextmanager
async def trickle(replica: Replica) -> AsyncIterator[None]:
    """An upload whose body comes bit by bit."""
    _, writer = await asyncio.open_connection("127.0.0.1", URL(replica.url).port)
    writer.write(
        b"POST /api/upload HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100000\r\n\r\n"
    )

    async def send() -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b" " * 600)  # not too slowly for the service
                await writer.drain()
                await asyncio.sleep(0.2)

    sending = asyncio.create_task(send())
    try:
        yield
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.transport.abort()


@pytest.mark.asyncio(loop_scope="module")
async def test_one_deadline_holds_for_a_body_that_trickles_and_a_bucket_that_hangs(
    own_servers: EmbeddedServers, tmp_path: Path
) -> None:
    shutdown_s = 6.0
    async with service(own_servers, "leaving-both", 8, tmp_path) as stack:
        environment = {**PATIENT, "IMGSVC_HTTP__SHUTDOWN_S": str(shutdown_s)}
        leaves = stack.start(**environment)
        assert await leaves.ready()
        posted = stack.new_post([[picture(2)]])
        stack.gcs.harm_once(BucketFault.STALL)
        assert await post(leaves, posted)
        await stack.gcs.stalled.wait()
        async with trickle(leaves):
            began = time.monotonic()
            leaves.process.terminate()
            assert await leaves.ended(shutdown_s + 4.0) == 0
            took_s = time.monotonic() - began
        assert took_s < shutdown_s + 1.5
        told = [line["event"] for line in leaves.events() if "event" in line]
        assert "shutdown.overdue" not in told
        assert [e["messages"] for e in leaves.events() if e["event"] == "shutdown.handed_back"] == [
            1
        ]
        assert [event for event in told if "never retrieved" in event] == []
        stack.gcs.heal()
        assert await stack.start().ready()
        assert await check(stack, [posted], within_s=90) == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("server", ["redis", "mongo"])
async def test_it_leaves_in_time_while_a_server_hangs(
    server: str, own_servers: EmbeddedServers, tmp_path: Path
) -> None:
    async with service(own_servers, f"leaving-{server}", 7, tmp_path) as stack:
        leaves = stack.start(**PATIENT)
        assert await leaves.ready()
        posted = stack.new_post([[picture(2)]])
        assert await post(leaves, posted)
        getattr(own_servers, server).signal(signal.SIGSTOP)
        try:
            leaves.process.terminate()
            assert await leaves.ended(LEAVES_S) == 0
        finally:
            getattr(own_servers, server).signal(signal.SIGCONT)
        assert await stack.start().ready()
        assert await check(stack, [posted], within_s=60) == []
