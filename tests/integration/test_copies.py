"""Images of one request with the same address end page by page, and hold nobody up."""

from __future__ import annotations

import asyncio
import contextlib
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from imgsvc.embedded.servers import EmbeddedServers
from imgsvc.ledger import Ledger
from imgsvc.mailboxes.keys import COPIES
from imgsvc.runtime.settings import Mongo, Settings
from tests.chaos.proxy import LedgerProxy, serving
from tests.integration.ledgers import FAILED, completed, known
from tests.integration.proxy import Proxy, between
from tests.support import Origin, Service, wait_until

Start = Callable[..., Awaitable[Service]]
PAGE = 100
PIXEL = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def through(port: int, settings: Settings) -> Settings:
    """Settings with MongoDB behind a proxy."""
    uri = SecretStr(f"mongodb://127.0.0.1:{port}/")
    return settings.model_copy(update={"mongo": settings.mongo.model_copy(update={"uri": uri})})


def ending(request_id: str, product: int) -> bytes:
    """What the command that ends the first image of a product contains, and no other."""
    return f"{request_id}/{product}".encode() + b"\x00\x03images.0.status\x00"


@pytest.fixture
async def network(servers: EmbeddedServers) -> AsyncIterator[Proxy]:
    """What lies between the service and MongoDB."""
    async with between(servers.mongo.port) as proxy:
        yield proxy


@pytest.mark.parametrize("name", ["rocket.jpg", "gone.jpg"])
async def test_another_request_ends_while_copies_do(  # noqa: PLR0917
    network: Proxy,
    make_settings: Callable[..., Settings],
    start_service: Start,
    origin: Origin,
    neighbour: Origin,
    name: str,
) -> None:
    settings = make_settings(http={"trusted_proxies": ["127.0.0.1"]})
    service = await start_service(through(network.port, settings))
    many = await service.upload([[origin.url(name)]] * 3 * PAGE)
    network.hold = ending(many, PAGE + 1)  # a copy of the second page
    await network.held.wait()

    service.session.headers["X-Forwarded-For"] = "203.0.113.2"
    small = neighbour.add("small.png", PIXEL)
    few = await service.upload([[f"{small}?{n}"] for n in range(12)])
    assert (await service.finished(few))["status"] == "COMPLETED"

    _, status = await service.get(f"/status/{many}")
    assert PAGE // 2 < status["processedImages"] < 2 * PAGE, "only whole pages have ended"
    network.release()
    done = await service.finished(many)
    good = name == "rocket.jpg"
    assert done["status"] == ("COMPLETED" if good else "FAILED")
    assert done["processedImages"] == done["processedProducts"] == 3 * PAGE
    assert done["sharedImages"] == (3 * PAGE - 1 if good else 0)
    assert origin.asked == [name]


async def test_a_tenant_with_many_that_have_copies_delays_no_other_tenant(
    network: Proxy,
    make_settings: Callable[..., Settings],
    start_service: Start,
    origin: Origin,
    neighbour: Origin,
) -> None:
    settings = make_settings(
        http={"trusted_proxies": ["127.0.0.1"]},
        mongo={"timeout_ms": 30_000},  # or what is held would be sent once more
    )
    service = await start_service(through(network.port, settings))
    pixel, count = origin.add("pixel.png", PIXEL), 60
    crowd = await service.upload([[f"{pixel}?{n}"] for n in range(count)] * 2)
    network.hold = ending(crowd, count)
    await network.held.wait()  # one copy ends, and all others wait for it

    async def are_there() -> bool:
        async with Redis(port=settings.redis.port) as client:
            return bool(await client.xlen(COPIES) == count)

    await wait_until(are_there, "all have come")
    service.session.headers["X-Forwarded-For"] = "203.0.113.2"
    few = await service.upload([[neighbour.add("small.png", PIXEL)]] * 2)
    assert (await service.finished(few))["sharedImages"] == 1
    _, status = await service.get(f"/status/{crowd}")
    assert status["sharedImages"] == 0
    network.release()
    assert (await service.finished(crowd))["sharedImages"] == count


@contextlib.asynccontextmanager
async def writes_of(
    servers: EmbeddedServers, start_service: Start, settings: Settings
) -> AsyncIterator[tuple[Service, list[bytes]]]:
    """A service, and the commands by which it writes to MongoDB."""
    async with serving(LedgerProxy(servers.mongo.port)) as ledger:
        written: list[bytes] = []
        ledger.fault = written.append  # type: ignore[assignment] # harms none
        yield await start_service(through(ledger.port, settings)), written


async def test_a_page_of_copies_costs_no_more_than_as_many_images(
    servers: EmbeddedServers,
    make_settings: Callable[..., Settings],
    start_service: Start,
    origin: Origin,
) -> None:
    """One update for each product, some to a command; and each page reads only its own."""
    async with writes_of(servers, start_service, make_settings()) as (service, written):
        request_id = await service.upload([[origin.url("rocket.jpg")] * 2] * 500)
        await service.finished(request_id)
        await service.stop()
    ends = [call for call in written if b"images.0.status" in call]
    assert (
        sum(call.count(ending(request_id, product)) for call in ends for product in range(500))
        == 500
    )
    assert len(ends) < 500 / 8 + 2 * 10
    assert len(written) < 2 * len(ends)


async def test_many_copies_in_one_product_are_one_path_each(
    servers: EmbeddedServers,
    make_settings: Callable[..., Settings],
    start_service: Start,
    origin: Origin,
) -> None:
    """A server may compare each path of an update with all others, and an end has a dozen."""
    async with writes_of(servers, start_service, make_settings()) as (service, written):
        url = origin.url("rocket.jpg")
        request_id = await service.upload([[url] * 20, [url] * 2])
        await service.finished(request_id)
        images = await service.images(request_id)
        await service.stop()
    assert len({(image["bytesOut"], image["status"]) for image in images}) == 1
    [copies] = [call for call in written if b"images.19.status" in call]
    assert b"images.19.output" not in copies, "it is set whole"
    assert b"images.1.output" in copies, "of two it is not worth reading the product whole"


async def test_copies_that_a_lost_replica_left_are_ended_by_another(
    network: Proxy,
    make_settings: Callable[..., Settings],
    start_service: Start,
    origin: Origin,
) -> None:
    settings = make_settings(redis={"heartbeat_s": 1, "reconcile_s": 0.5}, http={"shutdown_s": 0.5})
    leaving = await start_service(through(network.port, settings))
    request_id = await leaving.upload([[origin.url("gone.jpg")]] * 3 * PAGE)
    network.hold = ending(request_id, PAGE + 1)
    await network.held.wait()
    stopping = asyncio.create_task(leaving.stop())
    staying = await start_service()
    done = await staying.finished(request_id)
    network.release()
    await stopping
    assert (done["status"], done["failedImages"]) == ("FAILED", 3 * PAGE)
    assert origin.asked == ["gone.jpg"], "those of one page and the others ended as the first did"


async def test_copies_that_are_being_ended_are_not_dealt(
    network: Proxy,
    make_settings: Callable[..., Settings],
    start_service: Start,
    origin: Origin,
) -> None:
    settings = make_settings(redis={"reconcile_s": 0.1})
    service = await start_service(through(network.port, settings))
    request_id = await service.upload([[origin.url("gone.jpg")]] * 2 * PAGE)
    network.hold = ending(request_id, PAGE + 1)
    await network.held.wait()
    await asyncio.sleep(1)  # in which the dealer goes through them several times
    assert origin.asked == ["gone.jpg"]
    network.release()
    assert (await service.finished(request_id))["failedImages"] == 2 * PAGE
    assert origin.asked == ["gone.jpg"]


async def test_an_image_that_is_late_has_its_own_request_counted_anew_and_no_other(
    ledger: Ledger,
    mongo: Mongo,
    servers: EmbeddedServers,
    started: Callable[..., Awaitable[str]],
) -> None:
    requests = [await started(2) for _ in range(10)]
    await ledger.images.finish(requests[0], 0, 0, FAILED)
    async with between(servers.mongo.port) as proxy:
        uri = SecretStr(f"mongodb://127.0.0.1:{proxy.port}/")
        another = Ledger(mongo.model_copy(update={"uri": uri}))
        await another.check()
        proxy.hold = b"reusedImages"  # that of counting anew
        late, *others = (
            asyncio.create_task(another.images.finish(each, 0, 0, completed())) for each in requests
        )
        await asyncio.gather(*others)
        assert not late.done(), "the others did not wait for it"
        await proxy.held.wait()
        proxy.hold = b"reusedImages"
        proxy.release()
        assert not (await late).written
        assert proxy.hold, "it was counted once, and no other was"
        await asyncio.to_thread(another.close)
    for request_id in requests:
        status = await known(ledger, request_id)
        assert (status["processedImages"], status["status"]) == (1, "PROCESSING")


async def test_a_large_request_is_not_counted_anew_for_one_image(
    servers: EmbeddedServers, mongo: Mongo, started: Callable[..., Awaitable[str]], ledger: Ledger
) -> None:
    request_id = await started(*[1] * 200)
    await ledger.images.finish(request_id, 0, 0, completed())
    async with serving(LedgerProxy(servers.mongo.port)) as proxy:
        another = Ledger(mongo.model_copy(update={"uri": SecretStr(proxy.uri)}))
        written: list[bytes] = []
        proxy.fault = written.append  # type: ignore[assignment] # harms none
        assert not (await another.images.finish(request_id, 0, 0, FAILED)).written
        await asyncio.to_thread(another.close)
    assert not [call for call in written if b"reusedImages" in call]
    assert (await known(ledger, request_id))["processedImages"] == 1


async def test_metrics_count_an_image_once_and_its_copies_each(
    service: Service, origin: Origin
) -> None:
    await service.finished(await service.upload([[origin.url("gone.jpg")] * 3]))

    async def counted() -> bool:
        async with service.session.get(f"{service.url}/metrics") as response:
            text = await response.text()
        return 'imgsvc_images_total{code="FETCH_STATUS",status="FAILED"} 3.0' in text

    await wait_until(counted, "all three are counted")
