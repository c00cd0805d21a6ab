"""The ledger: every image ends once, every request ends once, and nothing is half written."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.messages import Source, Validators
from imgsvc.domain.model import Event, Recipe, Subscription
from imgsvc.embedded.servers import EmbeddedServers
from imgsvc.ledger import (
    NOBODY,
    Choice,
    Delivery,
    Idempotency,
    Ledger,
    OpenRequest,
)
from tests.integration.ledgers import (
    FAILED,
    HOOK,
    completed,
    known,
    new_request,
    products,
)
from tests.integration.proxy import Proxy
from tests.support import wait_until


async def is_away(call: Awaitable[Any]) -> None:
    with pytest.raises(ServiceError) as caught:
        await call
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert caught.value.retry_after_s


# Requests.


async def test_a_request_that_was_inserted_is_known_as_it_was_posted(ledger: Ledger) -> None:
    new = new_request(2, 1)
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    await ledger.uploads.accept(new)
    status = await known(ledger, new.id)
    assert before <= datetime.fromisoformat(status.pop("createdAt")) <= datetime.now(UTC)
    assert status.pop("updatedAt").endswith("Z")
    assert status == {
        "requestId": new.id,
        "status": "PENDING",
        "processedProducts": 0,
        "totalProducts": 2,
        "processedImages": 0,
        "failedImages": 0,
        "totalImages": 3,
        "bytesIn": 0,
        "bytesOut": 0,
        "sharedImages": 0,
        "reusedImages": 0,
        "webhook": {"status": "PENDING", "attempts": 0},
    }
    first, second = await products(ledger, new.id)
    assert (first["serialNumber"], first["productName"]) == ("S0", "Product 0")
    assert [i["url"] for i in first["images"]] == [
        "https://example.com/0-0",
        "https://example.com/0-1",
    ]
    assert (second["n"], second["open"]) == (1, 1)


async def test_an_unknown_request_is_nothing(ledger: Ledger) -> None:
    assert await ledger.requests.status("none", NOBODY) is None
    assert await ledger.delivery_log.attempts("nobody") is None
    assert await ledger.backlog.work("nobody", 0, 0) is None
    assert await ledger.completion.complete("nobody") is False
    assert await products(ledger, "nobody") == []


async def test_a_request_is_started_once_and_stays_listed_until_it_ends(ledger: Ledger) -> None:
    old, young = new_request(1, call_id="first"), new_request(1, call_id="second")
    await ledger.uploads.accept(old)
    await ledger.uploads.accept(young)
    first, second = (
        OpenRequest(each.id, each.call_id, NOBODY, len(each.products)) for each in (old, young)
    )
    assert await ledger.backlog.requests(10) == [first, second]
    assert await ledger.backlog.requests(1) == [first]
    await ledger.backlog.start([old.id])
    assert (await known(ledger, old.id))["status"] == "PROCESSING"
    assert await ledger.requests.count_in_flight(NOBODY) == (2, 2)
    await ledger.images.finish(old.id, 0, 0, completed())
    await ledger.backlog.start([old.id])
    assert (await known(ledger, old.id))["status"] == "COMPLETED"
    assert await ledger.backlog.requests(10) == [second]
    assert await ledger.requests.count_in_flight(NOBODY) == (1, 1)


async def test_however_many_requests_one_tenant_has_others_are_listed_too(ledger: Ledger) -> None:
    tenants = ("acme", "acme", "acme", "globex", "globex", "globex", "initech")
    requests = [new_request(1, quota_tenant=quota_tenant) for quota_tenant in tenants]
    for each in requests:
        await ledger.uploads.accept(each)
    found = [each.id for each in await ledger.backlog.requests(2)]
    assert found == [requests[n].id for n in (0, 1, 3, 4, 6)]


async def test_however_much_one_tenant_retries_and_cancels_others_have_their_turn(
    ledger: Ledger,
) -> None:
    failed, running = (
        [
            new_request(1, quota_tenant=quota_tenant)
            for quota_tenant in ("acme", "acme", "acme", "globex")
        ]
        for _ in range(2)
    )
    for each in (*failed, *running):
        await ledger.uploads.accept(each)
        await ledger.backlog.start([each.id])
    for one, other in zip(failed, running, strict=True):
        await ledger.images.finish(one.id, 0, 0, FAILED)
        assert await ledger.commands.retry(one.id, Choice(), 1)
        await ledger.commands.cancel(other.id)
        await asyncio.sleep(0.002)  # times have milliseconds
    reopening = await ledger.commands.pending_retries(2)
    assert (len(reopening), reopening[-1]) == (3, failed[3].id)
    assert await ledger.commands.pending_cancellations(2) == [running[n].id for n in (0, 1, 3)]


async def test_however_much_one_tenant_erases_others_have_their_turn(ledger: Ledger) -> None:
    requests = [new_request(1, tenant=tenant) for tenant in ("acme", "acme", "acme", "globex")]
    for each in requests:
        await ledger.uploads.accept(each)
        await ledger.erasures.ask(each.id)
        await asyncio.sleep(0.002)  # times have milliseconds
    assert await ledger.erasures.due(2) == [], "their work has not stopped"
    for each in requests:
        await ledger.commands.carry_out_cancellation(each.id)
    assert await ledger.erasures.due(2) == [requests[n].id for n in (0, 1, 3)]


async def test_what_is_noted_of_a_source_too_late_is_forgotten_with_the_request(
    ledger: Ledger,
) -> None:
    """A replica that slept between an image's end and noting its source wakes up."""
    gone, kept = new_request(1), new_request(1)
    for each in (gone, kept):
        await ledger.uploads.accept(each)
        source = Source(key=each.id, blake3="0" * 64, validators=Validators())
        await ledger.sources.remember(source, completed(f"{each.id}/0-0.jpg"))
    await ledger.erasures.ask(gone.id)
    for late in range(2):  # while it is being erased, and when it is
        source = Source(key=gone.id, blake3="0" * 64, validators=Validators())
        await ledger.sources.remember(source, completed(f"{gone.id}/0-0.jpg"))
        assert await ledger.sources.recall(gone.id, ttl_s=60) is None, late
        await ledger.commands.carry_out_cancellation(gone.id)
        assert await ledger.erasures.erase_products(gone.id, 10) == 1 - late
        await ledger.erasures.erase_request(gone.id)
    assert await ledger.sources.recall(kept.id, ttl_s=60)


async def test_a_source_that_an_older_version_noted_is_not_known(ledger: Ledger) -> None:
    source = Source(key="key", blake3="0" * 64, validators=Validators())
    await ledger.sources.remember(source, completed())
    assert await ledger.sources.recall("key", ttl_s=60)
    await ledger.store.sources.update_one(
        {"_id": "key"}, {"$rename": {"source.blake3": "source.sha256"}}
    )
    assert await ledger.sources.recall("key", ttl_s=60) is None


async def test_images_in_flight_are_counted_for_each_tenant(ledger: Ledger) -> None:
    assert await ledger.requests.count_in_flight("acme") == (0, 0)
    first = new_request(2, 1, quota_tenant="acme")
    await ledger.uploads.accept(first)
    await ledger.uploads.accept(new_request(5, quota_tenant="acme"))
    await ledger.uploads.accept(new_request(4, quota_tenant="globex"))
    assert await ledger.requests.count_in_flight("acme") == (12, 8)
    assert await ledger.requests.count_in_flight("globex") == (12, 4)
    assert await ledger.requests.count_in_flight("nobody else") == (12, 0)
    await ledger.backlog.start([first.id])
    await ledger.images.finish(first.id, 0, 1, FAILED)
    assert await ledger.requests.count_in_flight("acme") == (11, 7)
    found = await ledger.backlog.work(first.id, 0, 0)
    assert found
    assert found.quota_tenant == "acme"


async def test_what_was_posted_before_there_were_tenants_is_worked_on(
    ledger: Ledger, started: Callable[..., Awaitable[str]], stored: Any
) -> None:
    request_id = await started(1)
    for collection in (stored.requests, stored.products):
        await collection.update_many({}, {"$unset": {"payer": ""}})
    assert await ledger.requests.count_in_flight(NOBODY) == (1, 0)
    assert await ledger.backlog.work(request_id, 0, 0)


async def test_paging_through_requests_is_stable_while_new_ones_arrive(ledger: Ledger) -> None:
    async def page(before: tuple[datetime, str] | None) -> list[dict[str, Any]]:
        return await ledger.requests.newest(
            NOBODY, status=None, created_after=None, created_before=None, before=before, limit=3
        )

    new = [new_request(1) for _ in range(8)]
    await asyncio.gather(*(ledger.uploads.accept(n) for n in new))  # some in the same millisecond
    seen: list[dict[str, Any]] = []
    before = None
    while found := await page(before):
        seen.extend(found)
        before = datetime.fromisoformat(found[-1]["createdAt"]), found[-1]["requestId"]
        await ledger.uploads.accept(new_request(1))
    assert sorted(s["requestId"] for s in seen) == sorted(n.id for n in new)
    assert [s["createdAt"] for s in seen] == sorted((s["createdAt"] for s in seen), reverse=True)


async def test_requests_are_found_by_status_and_time(
    ledger: Ledger, started: Callable[..., Awaitable[str]]
) -> None:
    done = await started(1)
    await ledger.images.finish(done, 0, 0, completed())
    pending = new_request(1)
    await ledger.uploads.accept(pending)
    made = datetime.fromisoformat((await known(ledger, pending.id))["createdAt"])
    second = timedelta(seconds=1)

    async def ids(
        status: str | None, after: datetime | None = None, before: datetime | None = None
    ) -> set[str]:
        found = await ledger.requests.newest(
            NOBODY, status=status, created_after=after, created_before=before, before=None, limit=10
        )
        return {f["requestId"] for f in found}

    assert await ids("PENDING") == {pending.id}
    assert await ids("COMPLETED") == {done}
    assert await ids(None, after=made - second, before=made + second) >= {pending.id}
    assert await ids(None, after=made + second) == set()
    assert await ids(None, before=made - timedelta(minutes=1)) == set()


async def test_products_are_streamed_in_input_order_from_any_place(ledger: Ledger) -> None:
    new = new_request(*[1] * 1200)  # more than one batch in and out
    await ledger.uploads.accept(new)
    await ledger.images.finish(new.id, 3, 0, FAILED)
    await ledger.images.finish(new.id, 1100, 0, FAILED)
    assert [p["n"] for p in await products(ledger, new.id)] == list(range(1200))
    assert [p["n"] for p in await products(ledger, new.id, first=1190)] == list(range(1190, 1200))
    failed = await products(ledger, new.id, with_status="FAILED")
    assert [p["n"] for p in failed] == [3, 1100]


async def test_a_stream_of_products_may_be_left_half_way(ledger: Ledger) -> None:
    new = new_request(*[1] * 600)
    await ledger.uploads.accept(new)
    stream = ledger.requests.products(new.id, 600)
    assert (await anext(stream))["n"] == 0
    await stream.aclose()
    await ledger.check()


async def test_open_images_are_paged_and_leave_out_what_ended(ledger: Ledger) -> None:
    new = new_request(2, 1, 3, 1)
    await ledger.uploads.accept(new)
    await ledger.images.finish(new.id, 1, 0, completed())
    await ledger.images.finish(new.id, 2, 1, FAILED)

    async def pages(limit: int) -> list[list[tuple[int, list[int]]]]:
        after, found = -1, []
        while page := await ledger.backlog.images(new.id, after, limit):
            found.append([(open_.product, list(open_.turns)) for open_ in page])
            after = page[-1].product
        return found

    assert await pages(4) == [[(0, [0, 1]), (2, [0, 2]), (3, [0])]]
    assert await pages(2) == [[(0, [0, 1])], [(2, [0, 2])], [(3, [0])]]
    assert await pages(1) == [[(0, [0, 1])], [(2, [0, 2])], [(3, [0])]]


async def test_work_is_there_until_the_image_ends(ledger: Ledger) -> None:
    new = new_request(2)
    await ledger.uploads.accept(new)
    work = await ledger.backlog.work(new.id, 0, 1)
    assert work
    assert (work.url, work.recipe) == ("https://example.com/0-1", Recipe(quality=50))
    await ledger.images.finish(new.id, 0, 1, FAILED)
    assert await ledger.backlog.work(new.id, 0, 1) is None
    assert await ledger.backlog.work(new.id, 0, 0)
    assert await ledger.backlog.work(new.id, 0, 2) is None, "there is no such image"


async def test_images_are_wanted_until_their_request_is_cancelled_erased_or_ended(
    ledger: Ledger, started: Callable[..., Awaitable[str]]
) -> None:
    ids = [await started(1) for _ in range(4)]
    assert [await ledger.backlog.is_wanted(each) for each in ids] == [True] * 4
    assert not await ledger.backlog.is_wanted("nobody's")
    await ledger.commands.cancel(ids[1])
    await ledger.erasures.ask(ids[2])
    await ledger.images.finish(ids[3], 0, 0, FAILED)

    async def noticed() -> bool:
        return [await ledger.backlog.is_wanted(each) for each in ids] == [True, False, False, False]

    await wait_until(noticed, "the ledger is asked again")


# Ends.


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_whichever_product_is_the_last_ends_the_request(
    ledger: Ledger, started: Callable[..., Awaitable[str]], order: tuple[int, ...]
) -> None:
    request_id = await started(2, 1, 1)
    await ledger.images.finish(request_id, 0, 1, completed())
    due = [
        (await ledger.images.finish(request_id, product, 0, completed())).due for product in order
    ]
    assert due == [False, False, True]


async def test_the_last_image_ends_the_request(
    ledger: Ledger, started: Callable[..., Awaitable[str]]
) -> None:
    request_id = await started(2, 1)
    assert not (await ledger.images.finish(request_id, 0, 0, completed(bytes_out=4))).due
    halfway = await known(ledger, request_id)
    assert (halfway["processedImages"], halfway["processedProducts"]) == (1, 0)
    assert not (await ledger.images.finish(request_id, 1, 0, FAILED)).due
    assert (await ledger.images.finish(request_id, 0, 1, completed(bytes_out=5))).due
    status = await known(ledger, request_id)
    assert status["status"] == "PARTIAL"
    assert (status["processedImages"], status["failedImages"]) == (3, 1)
    assert (status["processedProducts"], status["bytesIn"], status["bytesOut"]) == (2, 20, 9)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((completed(), completed()), "COMPLETED"),
        ((completed(), FAILED), "PARTIAL"),
        ((FAILED, FAILED), "FAILED"),
    ],
)
async def test_the_ends_of_the_images_decide_the_status(
    ledger: Ledger, started: Callable[..., Awaitable[str]], ends: Any, expected: str
) -> None:
    request_id = await started(1, 1)
    for product, end in enumerate(ends):
        await ledger.images.finish(request_id, product, 0, end)
    assert (await known(ledger, request_id))["status"] == expected


async def test_an_end_is_written_with_all_that_is_known(
    ledger: Ledger, started: Callable[..., Awaitable[str]]
) -> None:
    request_id = await started(2)
    await ledger.images.finish(request_id, 0, 0, completed())
    await ledger.images.finish(request_id, 0, 1, FAILED)
    (product,) = await products(ledger, request_id)
    good, bad = product["images"]
    assert len(good.pop("writer")) == 16
    assert good == {
        "url": "https://example.com/0-0",
        "status": "COMPLETED",
        "output": "out.jpg",
        "checksum": "crc",
        "bytesIn": 10,
        "bytesOut": 4,
        "format": "jpeg",
        "width": 3,
        "height": 2,
        "note": "encoded",
        "ms": {"fetch": 7},
    }
    assert (bad["status"], bad["error"]) == (
        "FAILED",
        {"code": "FETCH_STATUS", "detail": FAILED.detail},
    )


async def test_the_first_end_stays(ledger: Ledger, started: Callable[..., Awaitable[str]]) -> None:
    request_id = await started(2)
    await ledger.images.finish(request_id, 0, 0, FAILED)
    await ledger.images.finish(request_id, 0, 0, completed())
    (product,) = await products(ledger, request_id)
    assert (product["images"][0]["status"], product["open"]) == ("FAILED", 1)
    status = await known(ledger, request_id)
    assert (status["processedImages"], status["failedImages"], status["bytesIn"]) == (1, 1, 0)


async def test_fifty_images_at_once_are_counted_exactly_and_complete_once(
    ledger: Ledger, started: Callable[..., Awaitable[str]]
) -> None:
    request_id = await started(*[5] * 10)
    ends = await asyncio.gather(
        *(
            ledger.images.finish(request_id, n // 5, n % 5, completed(bytes_out=n))
            for n in range(50)
        )
    )
    assert [end.due for end in ends].count(True) == 1
    status = await known(ledger, request_id)
    assert (status["status"], status["processedImages"], status["processedProducts"]) == (
        "COMPLETED",
        50,
        10,
    )
    assert (status["bytesIn"], status["bytesOut"]) == (500, sum(range(50)))


async def test_one_image_ended_fifty_times_at_once_ends_once(
    ledger: Ledger, started: Callable[..., Awaitable[str]]
) -> None:
    request_id = await started(1, 1)
    ends = [completed(output=f"{n}.jpg") if n % 2 else FAILED for n in range(50)]
    answers = await asyncio.gather(*(ledger.images.finish(request_id, 0, 0, e) for e in ends))
    assert not any(answer.due for answer in answers)
    (first, _) = await products(ledger, request_id)
    assert first["open"] == 0
    status = await known(ledger, request_id)
    assert (status["processedImages"], status["processedProducts"]) == (1, 1)
    assert status["failedImages"] == (first["images"][0]["status"] == "FAILED")
    assert (await ledger.images.finish(request_id, 1, 0, completed())).due


async def test_a_duplicate_does_not_spoil_its_neighbours_numbers(
    ledger: Ledger, started: Callable[..., Awaitable[str]]
) -> None:
    request_id, other = await started(3, 1), await started(2)
    await ledger.images.finish(request_id, 0, 0, completed())
    await asyncio.gather(
        ledger.images.finish(request_id, 0, 0, FAILED),  # again
        ledger.images.finish(request_id, 0, 1, FAILED),
        ledger.images.finish(request_id, 1, 0, completed(bytes_out=7)),
        ledger.images.finish(other, 0, 0, completed(bytes_out=8)),
    )
    status = await known(ledger, request_id)
    assert (status["processedImages"], status["failedImages"]) == (3, 1)
    assert (status["processedProducts"], status["bytesOut"]) == (1, 11)
    status = await known(ledger, other)
    assert (status["processedImages"], status["bytesOut"]) == (1, 8)


async def test_several_replicas_complete_a_request_once_with_exact_numbers(
    connect: Callable[[], Ledger], ledger: Ledger, started: Callable[..., Awaitable[str]]
) -> None:
    replicas = [ledger, connect(), connect()]
    ids = [await started(3, 3) for _ in range(10)]
    ends = [(r, p, i, replicas[i]) for r in ids for p in (0, 1) for i in range(3)]
    answers = await asyncio.gather(
        *(by.images.finish(r, p, i, completed()) for r, p, i, by in ends)
    )
    assert [answer.due for answer in answers].count(True) == len(ids)
    for request_id in ids:
        status = await known(ledger, request_id)
        assert (status["processedImages"], status["processedProducts"]) == (6, 2)
        assert (status["status"], status["bytesIn"]) == ("COMPLETED", 60)


async def test_an_end_that_was_there_before_does_not_keep_those_beside_it_from_being_written(
    connect: Callable[[], Ledger], ledger: Ledger, started: Callable[..., Awaitable[str]]
) -> None:
    """Ends of one product go together, and one of them came from another replica already."""
    request_id = await started(3, 1)
    await connect().images.finish(request_id, 0, 1, FAILED)
    await asyncio.gather(*(ledger.images.finish(request_id, 0, i, completed()) for i in range(3)))
    product, _ = await products(ledger, request_id)
    assert [image["status"] for image in product["images"]] == ["COMPLETED", "FAILED", "COMPLETED"]
    assert product["open"] == 0
    status = await known(ledger, request_id)
    assert (status["processedImages"], status["failedImages"]) == (3, 1)
    assert (status["processedProducts"], status["status"]) == (1, "PROCESSING")


async def test_an_end_that_comes_twice_at_once_is_counted_once(
    ledger: Ledger, started: Callable[..., Awaitable[str]]
) -> None:
    request_id = await started(2, 1)
    places = [(0, 0), (0, 1), (0, 0), (1, 0), (0, 0)]
    answers = await asyncio.gather(
        *(ledger.images.finish(request_id, *place, completed()) for place in places)
    )
    assert [answer.due for answer in answers].count(True) == 1
    assert [each["open"] for each in await products(ledger, request_id)] == [0, 0]
    status = await known(ledger, request_id)
    assert (status["processedImages"], status["processedProducts"]) == (3, 2)
    assert (status["status"], status["bytesIn"]) == ("COMPLETED", 30)


async def test_replicas_that_close_a_product_together_count_it_once(
    ledger: Ledger,
    bad_network: tuple[Proxy, Ledger],
    another_bad_network: tuple[Proxy, Ledger],
    started: Callable[..., Awaitable[str]],
) -> None:
    request_id = await started(2, 1)
    (network, one), (another_network, another) = bad_network, another_bad_network
    network.hold = another_network.hold = b"closed"  # each has ended its image
    first = asyncio.create_task(one.images.finish(request_id, 0, 0, completed()))
    second = asyncio.create_task(another.images.finish(request_id, 0, 1, completed()))
    await asyncio.gather(network.held.wait(), another_network.held.wait())
    another_network.hold = b"closed"  # the other sees that the product is closed
    another_network.release()
    await another_network.held.wait()
    network.hold = b"processedImages"  # the one was quicker, and has yet to count
    network.release()
    await network.held.wait()
    another_network.release()
    await second
    network.release()
    await first
    status = await known(ledger, request_id)
    assert (status["processedImages"], status["processedProducts"]) == (2, 1)
    assert (status["status"], status["bytesIn"]) == ("PROCESSING", 20)


async def test_what_is_accepted_is_on_the_disks_of_a_majority(
    bad_network: tuple[Proxy, Ledger],
) -> None:
    proxy, ledger = bad_network
    asked = (
        b"\x08j\x00\x01\x02w\x00\x09\x00\x00\x00majority\x00"  # {j: true, w: "majority"} in BSON
    )
    proxy.hold = asked
    inserting = asyncio.create_task(ledger.uploads.accept(new_request(1)))
    for written in ("journal", "product", "request"):
        held = asyncio.create_task(proxy.held.wait())
        await asyncio.wait({held, inserting}, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        assert held.done(), written
        proxy.hold = asked if written != "request" else None
        proxy.release()
    await inserting


async def test_a_replica_that_counts_late_does_not_count_twice(
    ledger: Ledger, bad_network: tuple[Proxy, Ledger], started: Callable[..., Awaitable[str]]
) -> None:
    request_id = await started(1, 1)
    proxy, slow = bad_network
    proxy.hold = b"processedImages"  # the image has ended, the request does not know yet
    finishing = asyncio.create_task(slow.images.finish(request_id, 0, 0, completed()))
    await proxy.held.wait()
    assert (await ledger.images.finish(request_id, 1, 0, completed())).due
    proxy.release()
    assert not (await finishing).due
    status = await known(ledger, request_id)
    assert (status["processedImages"], status["processedProducts"]) == (2, 2)
    assert (status["status"], status["bytesIn"]) == ("COMPLETED", 20)


@pytest.fixture
async def crashed(bad_network: tuple[Proxy, Ledger], started: Callable[..., Awaitable[str]]) -> str:
    """A request whose last image was ended by a replica that died before it could say so."""
    request_id = await started(1)
    proxy, crashing = bad_network
    proxy.hold = b"processedImages"
    finishing = asyncio.create_task(crashing.images.finish(request_id, 0, 0, FAILED))
    await proxy.held.wait()
    proxy.cut()
    await is_away(finishing)
    return request_id


async def test_a_crash_between_image_and_request_is_noticed_and_mended(
    ledger: Ledger, crashed: str
) -> None:
    status = await known(ledger, crashed)
    assert (status["status"], status["processedImages"]) == ("PROCESSING", 0)
    assert await ledger.backlog.images(crashed, -1, 10) == []
    assert await ledger.completion.complete(crashed)
    assert not await ledger.completion.complete(crashed)
    status = await known(ledger, crashed)
    assert (status["status"], status["failedImages"]) == ("FAILED", 1)
    assert (status["processedImages"], status["processedProducts"]) == (1, 1)


async def test_a_repeat_after_a_crash_ends_the_request(ledger: Ledger, crashed: str) -> None:
    assert (await ledger.images.finish(crashed, 0, 0, completed())).due
    status = await known(ledger, crashed)
    assert (status["status"], status["processedImages"]) == ("FAILED", 1), "the first end stays"


async def test_what_is_not_finished_cannot_be_completed(
    ledger: Ledger, started: Callable[..., Awaitable[str]]
) -> None:
    request_id = await started(2)
    await ledger.images.finish(request_id, 0, 0, completed())
    assert not await ledger.completion.complete(request_id)
    assert (await known(ledger, request_id))["status"] == "PROCESSING"


async def test_a_request_without_a_webhook_ends_with_nothing_due(
    ledger: Ledger, started: Callable[..., Awaitable[str]]
) -> None:
    request_id = await started(1, webhook=None)
    assert not (await ledger.images.finish(request_id, 0, 0, completed())).due
    status = await known(ledger, request_id)
    assert (status["status"], status["webhook"]) == ("COMPLETED", None)
    assert await ledger.deliveries.due(10) == {}
    assert await ledger.delivery_log.attempts(request_id) == {"attempts": [], "nextAttemptAt": None}


# Webhooks.


@pytest.fixture
async def ended(ledger: Ledger, started: Callable[..., Awaitable[str]]) -> str:
    """A request whose webhook is due."""
    request_id = await started(1, call_id="the call")
    await ledger.images.finish(request_id, 0, 0, completed())
    return request_id


async def test_a_webhook_is_due_from_the_end_of_its_request(
    ledger: Ledger, started: Callable[..., Awaitable[str]]
) -> None:
    request_id = await started(1, call_id="the call")
    assert await ledger.deliveries.due(10) == {}
    assert await ledger.deliveries.pending(request_id) is None
    assert await ledger.deliveries.claim(request_id, 1, 60) is None
    await ledger.images.finish(request_id, 0, 0, completed())
    assert await ledger.deliveries.due(10) == {request_id: "the call"}


async def test_an_end_that_nobody_wants_to_hear_of_is_not_announced(
    ledger: Ledger, started: Callable[..., Awaitable[str]]
) -> None:
    only_bad_news = Subscription(url=HOOK, events=(Event.PARTIAL, Event.FAILED))
    well, badly = [await started(1, webhook=only_bad_news) for _ in range(2)]
    assert (await known(ledger, well))["webhook"] == {"status": "PENDING", "attempts": 0}
    assert not (await ledger.images.finish(well, 0, 0, completed())).due
    assert (await ledger.images.finish(badly, 0, 0, FAILED)).due
    assert list(await ledger.deliveries.due(10)) == [badly]
    assert (await known(ledger, well))["webhook"] is None
    assert not await ledger.deliveries.replay(well)


async def claim(ledger: Ledger, request_id: str, attempt: int, lost_after_s: float = 0) -> Delivery:
    claimed = await ledger.deliveries.claim(request_id, attempt, lost_after_s)
    assert claimed
    return claimed


async def record(
    ledger: Ledger, request_id: str, claimed: Delivery, error: str | None, next_wait_s: float | None
) -> None:
    await ledger.deliveries.record(
        request_id,
        claimed,
        http_status=500 if error else 204,
        latency_ms=12,
        error=error,
        next_wait_s=next_wait_s,
    )


async def log(ledger: Ledger, request_id: str) -> list[dict[str, Any]]:
    found = await ledger.delivery_log.attempts(request_id)
    assert found
    attempts: list[dict[str, Any]] = found["attempts"]
    return attempts


async def test_of_claims_at_once_one_gets_the_attempt(
    connect: Callable[[], Ledger], ledger: Ledger, ended: str
) -> None:
    replicas = [ledger, connect()]
    claims = await asyncio.gather(*(r.deliveries.claim(ended, 1, 0) for r in replicas * 10))
    assert sum(1 for claimed in claims if claimed) == 1
    assert len(await log(ledger, ended)) == 1


async def test_a_claim_says_what_to_send_where(
    ledger: Ledger, started: Callable[..., Awaitable[str]]
) -> None:
    secret = SecretStr("whsec_" + "A" * 32)
    webhook = Subscription(url=HOOK, secret=secret, headers={"X-A": SecretStr("hunter2")})
    request_id = await started(1, webhook=webhook)
    await ledger.images.finish(request_id, 0, 0, completed())
    pending = await ledger.deliveries.pending(request_id)
    assert pending
    assert (pending.attempt, pending.url, pending.wait_s) == (1, HOOK, 0)
    claimed = await claim(ledger, request_id, 1)
    assert (claimed.attempt, claimed.url) == (1, HOOK)
    assert claimed.status == await known(ledger, request_id)
    assert (claimed.secret, claimed.headers) == (secret.get_secret_value(), {"X-A": "hunter2"})
    assert "hunter2" not in repr(claimed)
    assert "whsec_" not in repr(claimed)


async def test_while_an_attempt_is_under_way_no_other_is_due(ledger: Ledger, ended: str) -> None:
    await claim(ledger, ended, 1, lost_after_s=60)
    assert await ledger.deliveries.due(10) == {}
    pending = await ledger.deliveries.pending(ended)
    assert pending
    assert (pending.attempt, 50 < pending.wait_s <= 60) == (2, True)
    assert await ledger.deliveries.claim(ended, 2, 60) is None
    found = await ledger.delivery_log.attempts(ended)
    assert found
    assert found["nextAttemptAt"] is None
    (entry,) = found["attempts"]
    assert (entry["status"], entry["latencyMs"], entry["error"]) == (None, None, "UNFINISHED")


async def test_a_last_attempt_that_never_came_back_fails_the_webhook(
    ledger: Ledger, ended: str
) -> None:
    await claim(ledger, ended, 1)
    assert (await known(ledger, ended))["webhook"] == {"status": "PENDING", "attempts": 1}
    await ledger.deliveries.exhaust(ended, 1)
    assert (await known(ledger, ended))["webhook"] == {"status": "FAILED", "attempts": 1}
    assert await ledger.deliveries.due(10) == {}


@pytest.mark.parametrize(
    ("error", "next_wait_s", "expected"),
    [(None, None, "DELIVERED"), ("status 500", None, "FAILED"), ("status 500", 60.0, "PENDING")],
)
async def test_what_came_of_an_attempt_is_recorded(
    ledger: Ledger, ended: str, error: str | None, next_wait_s: float | None, expected: str
) -> None:
    before = datetime.now(UTC)
    await record(ledger, ended, await claim(ledger, ended, 1), error, next_wait_s)
    assert (await known(ledger, ended))["webhook"] == {"status": expected, "attempts": 1}
    found = await ledger.delivery_log.attempts(ended)
    assert found
    (entry,) = found["attempts"]
    assert entry.pop("at").endswith("Z")
    assert entry == {
        "attempt": 1,
        "status": 500 if error else 204,
        "latencyMs": 12,
        "error": error,
    }
    assert await ledger.deliveries.due(10) == {}, "not (yet) again"
    if next_wait_s is None:
        assert found["nextAttemptAt"] is None
        assert await ledger.deliveries.pending(ended) is None
    else:
        planned = datetime.fromisoformat(found["nextAttemptAt"]) - before
        assert next_wait_s - 1 < planned.total_seconds() < next_wait_s + 5
        assert await ledger.deliveries.claim(ended, 2, 0) is None, "not before its time"


async def test_an_attempt_that_was_put_off_is_not_due(ledger: Ledger, ended: str) -> None:
    await ledger.deliveries.put_off(ended, 1, 60)
    assert await ledger.deliveries.due(10) == {}
    assert await ledger.deliveries.claim(ended, 1, 0) is None
    assert (await known(ledger, ended))["webhook"] == {"status": "PENDING", "attempts": 0}


async def test_a_late_failure_does_not_undo_a_delivery(ledger: Ledger, ended: str) -> None:
    first, second = await claim(ledger, ended, 1), await claim(ledger, ended, 2)
    await record(ledger, ended, second, None, None)
    await record(ledger, ended, first, "FETCH_TIMEOUT", None)
    assert (await known(ledger, ended))["webhook"]["status"] == "DELIVERED"


async def test_a_late_failure_does_not_end_what_another_attempt_is_about(
    ledger: Ledger, ended: str
) -> None:
    first = await claim(ledger, ended, 1)
    await claim(ledger, ended, 2, lost_after_s=60)
    await record(ledger, ended, first, "FETCH_TIMEOUT", None)
    assert (await known(ledger, ended))["webhook"] == {"status": "PENDING", "attempts": 2}
    assert await ledger.deliveries.due(10) == {}


async def test_a_late_success_ends_it(ledger: Ledger, ended: str) -> None:
    first = await claim(ledger, ended, 1)
    await claim(ledger, ended, 2, lost_after_s=60)
    await record(ledger, ended, first, None, None)
    assert (await known(ledger, ended))["webhook"]["status"] == "DELIVERED"
    assert [entry["error"] for entry in await log(ledger, ended)] == [None, "UNFINISHED"]


async def test_a_success_from_before_images_were_tried_again_does_not_count_for_the_new_end(
    ledger: Ledger, started: Callable[..., Awaitable[str]]
) -> None:
    request_id = await started(1)
    await ledger.images.finish(request_id, 0, 0, FAILED)
    old = await claim(ledger, request_id, 1)
    assert await ledger.commands.retry_image(request_id, 0, 0)
    await ledger.commands.carry_out_retry(request_id)
    assert (await ledger.images.finish(request_id, 0, 0, completed(), turn=1)).due
    await record(ledger, request_id, old, None, None)
    assert (await known(ledger, request_id))["webhook"] == {"status": "PENDING", "attempts": 0}


async def test_a_replay_is_a_new_cycle_that_keeps_the_log(ledger: Ledger, ended: str) -> None:
    assert not await ledger.deliveries.replay(ended), "it is under way"
    await record(ledger, ended, await claim(ledger, ended, 1), "status 500", None)
    assert await ledger.deliveries.replay(ended)
    assert list(await ledger.deliveries.due(10)) == [ended]
    await record(ledger, ended, await claim(ledger, ended, 1), None, None)
    assert [entry["error"] for entry in await log(ledger, ended)] == ["status 500", None]


async def test_webhooks_that_were_given_up_are_found_by_the_time_of_that(
    ledger: Ledger, started: Callable[..., Awaitable[str]]
) -> None:
    begin = datetime.now(UTC) - timedelta(milliseconds=1)  # the ledger cuts times to milliseconds
    ids = []
    for error in ("status 500", None, "FETCH_TIMEOUT"):
        request_id = await started(1)
        await ledger.images.finish(request_id, 0, 0, completed())
        await record(ledger, request_id, await claim(ledger, request_id, 1), error, None)
        ids.append(request_id)
    end = datetime.now(UTC)
    first, third = await ledger.delivery_log.failed(begin, end, 10)
    assert (first.request_id, first.error) == (ids[0], "status 500")
    assert (third.request_id, third.error) == (ids[2], "FETCH_TIMEOUT")
    assert await ledger.delivery_log.failed(third.failed_at, end, 10) == [third]
    assert await ledger.delivery_log.failed(begin, first.failed_at, 10) == [first]
    assert await ledger.delivery_log.failed(begin, end, 1) == [first]


async def test_a_time_that_a_wrong_clock_has_set_is_not_waited_for(
    ledger: Ledger, started: Callable[..., Awaitable[str]], stored: Any
) -> None:
    request_id = await started(1)
    await ledger.images.finish(request_id, 0, 0, completed())
    await ledger.deliveries.put_off(request_id, 1, 60)
    assert await ledger.deliveries.due(10) == {}
    ahead = datetime.now(UTC) + timedelta(hours=1)
    times = {"webhook.setAt": ahead, "webhook.nextAt": ahead + timedelta(seconds=1)}
    await stored.requests.update_one({"_id": request_id}, {"$set": times})
    assert list(await ledger.deliveries.due(10)) == [request_id]
    pending = await ledger.deliveries.pending(request_id)
    assert pending
    assert pending.wait_s == 0
    assert await ledger.deliveries.claim(request_id, 1, 60)
    assert await ledger.deliveries.due(10) == {}, "its own clock says when"


# MongoDB is away.


async def test_while_mongodb_is_away_all_say_so_soon_and_then_go_on(
    ledger: Ledger, started: Callable[..., Awaitable[str]], stored: Any, servers: EmbeddedServers
) -> None:
    request_id = await started(2)
    unborn = new_request(1)
    servers.mongo.kill()
    calls = (
        ledger.uploads.accept(unborn),
        ledger.requests.status(request_id, NOBODY),
        ledger.backlog.work(request_id, 0, 0),
        ledger.images.finish(request_id, 0, 0, completed()),
        ledger.images.finish(request_id, 0, 1, completed()),
        ledger.completion.complete(request_id),
        ledger.backlog.requests(10),
        ledger.deliveries.due(10),
        ledger.deliveries.pending(request_id),
        ledger.deliveries.claim(request_id, 1, 60),
        ledger.requests.count_in_flight(NOBODY),
        anext(ledger.requests.products(request_id, 2)),
        ledger.check(),
        ledger.prepare(),
    )
    killed = time.monotonic()
    try:
        await asyncio.gather(*(is_away(call) for call in calls))
        assert time.monotonic() - killed < 3
    finally:
        await servers.mongo.start()

    async def goes_on() -> bool:
        with contextlib.suppress(ServiceError):  # the driver looks for it twice a second
            await ledger.check()
            return True
        return False

    await wait_until(goes_on, "the driver has found MongoDB again", 3)
    assert await ledger.requests.status(unborn.id, NOBODY) is None
    assert await stored.products.count_documents({"request": unborn.id}) == 0
    assert [list(o.turns) for o in await ledger.backlog.images(request_id, -1, 10)] == [[0, 1]]
    await asyncio.gather(
        ledger.images.finish(request_id, 0, 0, completed()),
        ledger.images.finish(request_id, 0, 1, completed()),
    )
    assert (await known(ledger, request_id))["status"] == "COMPLETED"


@pytest.mark.parametrize("fault", ["hold", "lose_reply_to"])
async def test_an_insert_that_breaks_off_leaves_nothing(
    bad_network: tuple[Proxy, Ledger], stored: Any, fault: str
) -> None:
    proxy, breaking = bad_network
    setattr(proxy, fault, b"totalImages")  # the products are written, the request is not
    inserting = asyncio.create_task(breaking.uploads.accept(new_request(2, 2)))
    if fault == "hold":
        await proxy.held.wait()
        assert await stored.products.count_documents({}) == 2
        proxy.cut()
    await is_away(inserting)
    assert proxy.held.is_set() or proxy.lost.is_set()
    assert await stored.requests.count_documents({}) == 0
    assert await stored.products.count_documents({}) == 0


# The journal of uploads.


def idempotency(key: str = "k", digest: str = "d", keep_s: float = 60.0) -> Idempotency:
    return Idempotency(key, digest, keep_s)


async def due_now(stored: Any) -> None:
    """As if all entries' time had come."""
    await stored.intakes.update_many({}, {"$set": {"checkAt": datetime.now(UTC)}})


async def test_an_upload_that_is_repeated_is_the_same_request(ledger: Ledger, stored: Any) -> None:
    first, second = (new_request(2, 1, idempotency=idempotency()) for _ in range(2))
    assert await ledger.uploads.accept(first) == first.id
    assert await ledger.journal.accepted_before(second) == first.id
    assert await ledger.uploads.accept(second) == first.id
    assert await stored.requests.count_documents({}) == 1
    assert await stored.products.count_documents({}) == 2


async def test_uploads_with_one_key_that_come_at_once_are_one_request(
    ledger: Ledger, stored: Any
) -> None:
    uploads = [new_request(1, 2, idempotency=idempotency()) for _ in range(8)]
    ids = await asyncio.gather(*map(ledger.uploads.accept, uploads))
    assert len(set(ids)) == 1
    assert await stored.requests.count_documents({}) == 1
    assert await stored.products.count_documents({}) == 2


@pytest.mark.parametrize("other", [{"tenant": "other"}, {"idempotency": idempotency("other")}])
async def test_a_key_speaks_for_its_own_tenant_and_upload(
    ledger: Ledger, other: dict[str, Any]
) -> None:
    ours = await ledger.uploads.accept(new_request(1, idempotency=idempotency()))
    assert (
        await ledger.uploads.accept(new_request(1, **{"idempotency": idempotency(), **other}))
        != ours
    )


async def test_a_key_that_came_with_something_else_is_refused(ledger: Ledger, stored: Any) -> None:
    await ledger.uploads.accept(new_request(1, idempotency=idempotency()))
    other = new_request(1, idempotency=idempotency(digest="other"))
    for call in (ledger.uploads.accept(other), ledger.journal.accepted_before(other)):
        with pytest.raises(ServiceError) as caught:
            await call
        assert caught.value.code is ErrorCode.IDEMPOTENCY_CONFLICT
    assert await stored.products.count_documents({}) == 1


async def test_a_key_is_forgotten_when_its_time_is_over(ledger: Ledger, stored: Any) -> None:
    upload = new_request(1, idempotency=idempotency(keep_s=0.001))
    await ledger.uploads.accept(upload)
    await asyncio.sleep(0.01)
    again = new_request(1, idempotency=idempotency(digest="other"))
    assert await ledger.journal.accepted_before(again) is None
    assert await ledger.uploads.accept(again) == again.id
    assert await stored.requests.count_documents({}) == 2


async def test_an_insert_with_a_key_that_breaks_off_goes_on_when_it_is_repeated(
    bad_network: tuple[Proxy, Ledger], ledger: Ledger, stored: Any
) -> None:
    proxy, breaking = bad_network
    proxy.hold = b"totalImages"  # the products are written, the request is not
    first = new_request(2, 2, idempotency=idempotency())
    inserting = asyncio.create_task(breaking.uploads.accept(first))
    await proxy.held.wait()
    proxy.cut()
    await is_away(inserting)
    assert await stored.products.count_documents({}) == 2
    assert await ledger.uploads.accept(new_request(2, 2, idempotency=idempotency())) == first.id
    assert await stored.products.count_documents({"request": first.id}) == 2
    assert await stored.requests.count_documents({"_id": first.id}) == 1


@pytest.mark.parametrize("keyed", [True, False])
async def test_what_a_crash_left_of_an_upload_is_swept(
    ledger: Ledger, stored: Any, keyed: bool
) -> None:
    accepted = await ledger.uploads.accept(new_request(1, idempotency=idempotency("kept")))
    gone = new_request(2, 1, idempotency=idempotency() if keyed else None)
    await ledger.uploads.accept(gone)
    await stored.requests.delete_one({"_id": gone.id})  # as if its replica had died before
    assert await ledger.journal.sweep() == 0, "it may still be written"
    for condemned_before in (False, True):
        await due_now(stored)
        assert await ledger.journal.sweep() == condemned_before
    assert await stored.products.distinct("request") == [accepted]
    assert [entry["request"] async for entry in stored.intakes.find()] == [accepted]
    if keyed:
        assert (
            await ledger.uploads.accept(again := new_request(1, idempotency=idempotency()))
            == again.id
        )


async def test_the_journal_forgets_what_is_written(ledger: Ledger, stored: Any) -> None:
    await ledger.uploads.accept(new_request(1))
    await ledger.uploads.accept(new_request(1, idempotency=idempotency("short", keep_s=0.001)))
    kept = await ledger.uploads.accept(new_request(1, idempotency=idempotency("long")))
    await due_now(stored)
    assert await ledger.journal.sweep() == 0
    (entry,) = [entry async for entry in stored.intakes.find()]
    assert entry["request"] == kept
    assert entry["checkAt"] == entry["keepUntil"]
    assert await stored.requests.count_documents({}) == 3


async def test_what_is_condemned_can_be_taken_up_and_what_is_being_removed_cannot(
    ledger: Ledger, stored: Any
) -> None:
    first = await ledger.uploads.accept(new_request(1, idempotency=idempotency()))
    await stored.requests.delete_many({})
    await due_now(stored)
    assert await ledger.journal.sweep() == 0
    assert await ledger.uploads.accept(new_request(1, idempotency=idempotency())) == first
    await stored.requests.delete_many({})
    await stored.intakes.update_many({}, {"$set": {"state": "REMOVING"}})
    await is_away(ledger.uploads.accept(new_request(1, idempotency=idempotency())))
    await due_now(stored)
    assert await ledger.journal.sweep() == 1
    assert await ledger.uploads.accept(new_request(1, idempotency=idempotency())) != first


@pytest.mark.parametrize("keyed", [True, False])
async def test_an_upload_that_was_condemned_meanwhile_is_not_accepted(
    bad_network: tuple[Proxy, Ledger], ledger: Ledger, stored: Any, keyed: bool
) -> None:
    proxy, slow = bad_network
    proxy.hold = b"productName"  # the entry is written, the products are not
    inserting = asyncio.create_task(
        slow.uploads.accept(new_request(1, idempotency=idempotency() if keyed else None))
    )
    await proxy.held.wait()
    await due_now(stored)
    assert await ledger.journal.sweep() == 0
    proxy.release()
    await is_away(inserting)
    assert await stored.requests.count_documents({}) == 0
    await due_now(stored)
    assert await ledger.journal.sweep() == 1
    assert await stored.products.count_documents({}) == 0
