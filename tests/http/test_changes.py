"""Retry, cancel, erase: what a client can do about a request that is there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

import orjson
import pytest
from pymongo import AsyncMongoClient

from imgsvc.runtime.settings import Settings
from tests.support import Origin, Receiver, Service, wait_until

SOON = 0.00001  # days: 0.9 s


@pytest.fixture
async def stored(make_settings: Callable[..., Settings]) -> AsyncIterator[Any]:
    """The database as another client sees it."""
    mongo = make_settings().mongo
    async with AsyncMongoClient(mongo.uri.get_secret_value()) as client:
        yield client[mongo.database]


@pytest.fixture
async def partial(service: Service, origin: Origin, receiver: Receiver) -> str:
    """An ended request: one good image, one that is missing, one that is no image, one missing."""
    origin.add("text.jpg", b"This is no picture.")
    request_id = await service.upload(
        [
            [origin.url("rocket.jpg"), origin.url("gone.jpg"), origin.url("text.jpg")],
            [origin.url("gone-too.jpg")],
        ],
        webhookUrl=receiver.url,
    )
    await service.finished(request_id)
    await service.announced(request_id)
    return request_id


def mend(origin: Origin) -> None:
    """Put the missing pictures where they belong."""
    for name in ("gone.jpg", "gone-too.jpg"):
        origin.add(name, origin.photo("coffee.png"))


async def ends(service: Service, request_id: str) -> list[tuple[int, int, str, str | None]]:
    """What became of each image."""
    return [
        (i["product"], i["index"], i["status"], i["error"] and i["error"]["code"])
        for i in await service.images(request_id)
    ]


def events(receiver: Receiver) -> list[tuple[str, int, str]]:
    """Type, cycle and id of each webhook."""
    bodies = [(orjson.loads(one.body), one.headers["webhook-id"]) for one in receiver.received]
    return [(body["type"], body["cycle"], message_id) for body, message_id in bodies]


async def hidden(service: Service, request_id: str) -> None:
    """The request is gone for its client, wherever it asks."""
    for path in (
        f"/status/{request_id}",
        f"/download/{request_id}",
        f"/api/requests/{request_id}/images",
        f"/api/requests/{request_id}/report",
        f"/api/requests/{request_id}/deliveries",
    ):
        status, problem = await service.get(path)
        assert (status, problem["code"]) == (410, "GONE")
    for call in ("retry", "cancel", "deliveries/replay"):
        status, problem = await service.post(f"/api/requests/{request_id}/{call}")
        assert (status, problem["code"]) == (410, "GONE")
    _, page = await service.get("/api/requests")
    assert request_id not in [found["requestId"] for found in page["requests"]]


async def erased(service: Service, request_id: str, stored: Any) -> None:
    """Nothing of the request is left but its tombstone."""

    async def done() -> bool:
        status, answer = await service.delete(f"/api/requests/{request_id}")
        assert status == 202
        return bool(answer["erased"])

    await wait_until(done, "it is erased")
    assert await service.objects(request_id) == []
    assert await stored.products.count_documents({"request": request_id}) == 0
    mine = {"$regex": f"^{request_id}/"}
    assert await stored.sources.count_documents({"end.output": mine}) == 0
    tombstone = await stored.requests.find_one({"_id": request_id})
    assert tombstone.keys() == {"_id", "tenant", "askedAt", "erasedAt", "sweepFrom"}
    assert tombstone["askedAt"] <= tombstone["erasedAt"]


# Retry.


async def test_what_failed_is_worked_on_again_and_what_worked_is_not(
    service: Service, origin: Origin, partial: str
) -> None:
    before = (await service.images(partial))[0]
    mend(origin)
    status, answer = await service.post(f"/api/requests/{partial}/retry", json={})
    assert (status, answer) == (202, {"requestId": partial, "status": "PROCESSING"})
    found = await service.finished(partial)
    assert (found["status"], found["processedImages"], found["failedImages"]) == ("PARTIAL", 4, 1)
    assert (found["processedProducts"], found["totalProducts"]) == (2, 2)
    await service.announced(partial)
    assert await ends(service, partial) == [
        (0, 0, "COMPLETED", None),
        (0, 1, "COMPLETED", None),
        (0, 2, "FAILED", "NOT_AN_IMAGE"),
        (1, 0, "COMPLETED", None),
    ]
    assert (await service.images(partial))[0] == before
    assert origin.asked.count("rocket.jpg") == 1
    assert origin.asked.count("text.jpg") == 2


async def test_each_end_is_announced_as_an_event_of_its_own(
    service: Service, origin: Origin, receiver: Receiver, partial: str
) -> None:
    mend(origin)
    await service.post(f"/api/requests/{partial}/retry", json={"codes": ["FETCH_STATUS"]})
    await service.finished(partial)
    assert (await service.announced(partial))["webhook"] == {"status": "DELIVERED", "attempts": 1}
    origin.add("text.jpg", origin.photo("rocket.jpg"))
    await service.post(f"/api/requests/{partial}/retry")  # no body: all of them
    assert (await service.finished(partial))["status"] == "COMPLETED"
    last = await service.announced(partial)
    assert events(receiver) == [
        ("request.partial", 1, f"msg_{partial}"),
        ("request.partial", 2, f"msg_{partial}_2"),
        ("request.completed", 3, f"msg_{partial}_3"),
    ]
    told = orjson.loads(receiver.received[-1].body)["data"]
    assert (told["status"], told["failedImages"]) == ("COMPLETED", 0)
    assert last["webhook"] == {"status": "DELIVERED", "attempts": 1}


@pytest.mark.parametrize(
    ("choice", "completed"),
    [
        ({}, [(0, 1), (1, 0)]),
        ({"codes": ["FETCH_STATUS", "DNS_FAILED"]}, [(0, 1), (1, 0)]),
        ({"products": [1]}, [(1, 0)]),
        ({"products": ["1"]}, [(0, 1)]),  # its serial number
        ({"codes": ["FETCH_STATUS"], "products": ["2", 7]}, [(1, 0)]),
    ],
)
async def test_the_client_chooses_by_code_and_product(
    service: Service,
    origin: Origin,
    partial: str,
    choice: dict[str, Any],
    completed: list[tuple[int, int]],
) -> None:
    mend(origin)
    status, _ = await service.post(f"/api/requests/{partial}/retry", json=choice)
    assert status == 202
    await service.finished(partial)
    await service.announced(partial)
    found = [(p, i) for p, i, status, _ in await ends(service, partial) if status == "COMPLETED"]
    assert found == sorted([(0, 0), *completed])
    if "codes" in choice:
        assert origin.asked.count("text.jpg") == 1


@pytest.mark.parametrize(
    "choice", [{"codes": ["DNS_FAILED"]}, {"products": [5]}, {"products": ["SKU"]}]
)
async def test_where_nothing_matches_nothing_is_retried(
    service: Service, receiver: Receiver, partial: str, choice: dict[str, Any]
) -> None:
    before = await service.get(f"/status/{partial}")
    status, problem = await service.post(f"/api/requests/{partial}/retry", json=choice)
    assert (status, problem["code"]) == (409, "NOTHING_TO_RETRY")
    assert await service.get(f"/status/{partial}") == before
    assert len(receiver.received) == 1


async def test_only_what_has_ended_can_be_retried(
    service: Service, origin: Origin, hold: Any
) -> None:
    request_id = await service.upload([[origin.add("slow.jpg", hold.handler)]])
    status, problem = await service.post(f"/api/requests/{request_id}/retry", json={})
    assert (status, problem["code"]) == (409, "NOT_FINISHED")
    hold.release()
    await service.finished(request_id)
    status, problem = await service.post(f"/api/requests/{request_id}/retry", json={})
    assert (status, problem["code"]) == (409, "NOTHING_TO_RETRY")


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"codes": []}, ["codes"]),
        ({"codes": ["DNS_FAILED", "NO_SUCH_CODE"]}, ["codes", 1]),
        ({"codes": ["NOT_FOUND"]}, ["codes", 0]),  # a code, but not of images
        ({"products": [-1]}, ["products", 0]),
        ({"products": [1.5]}, ["products", 0]),
        ({"products": [True]}, ["products", 0]),
        ({"products": [0, 2**63]}, ["products", 1]),
        ({"images": [1]}, ["images"]),
    ],
)
async def test_a_choice_that_makes_no_sense_names_the_field(
    service: Service, body: dict[str, Any], place: list[Any]
) -> None:
    request_id = await service.upload([["http://127.0.0.1:1/none.jpg"]])
    await service.finished(request_id)
    status, problem = await service.post(f"/api/requests/{request_id}/retry", json=body)
    assert (status, problem["code"]) == (422, "VALIDATION_FAILED")
    assert [error["loc"] for error in problem["errors"]] == [place]


# Cancel.


async def test_what_has_not_started_is_cancelled_at_once_and_results_stay(
    start_service: Any, origin: Origin, receiver: Receiver, hold: Any
) -> None:
    service = await start_service(fetch={"per_host": 16})  # nobody waits for a connection
    slow = origin.add("slow.jpg", hold.handler)
    waiting = [[origin.url(f"never-{n}.jpg")] for n in range(300)]  # more than are dealt ahead
    request_id = await service.upload(
        [
            [origin.url("rocket.jpg"), origin.url("none.jpg")],
            *[[f"{slow}?{n}"] for n in range(20)],
            *waiting,
        ],
        webhookUrl=receiver.url,
    )

    async def under_way() -> bool:
        _, found = await service.get(f"/status/{request_id}")
        return found["processedImages"] >= 2 and "slow.jpg" in origin.asked

    await wait_until(under_way, "some are done and some are being fetched")
    status, answer = await service.post(f"/api/requests/{request_id}/cancel")
    assert (status, answer["requestId"]) == (202, request_id)
    found = await service.finished(request_id, within_s=10)  # although some are being fetched
    assert found["status"] == "CANCELLED"
    assert found["processedImages"] == found["totalImages"] == 322
    assert (found["processedProducts"], found["failedImages"]) == (321, 1)
    statuses = {(p, i): status for p, i, status, _ in await ends(service, request_id)}
    assert (statuses.pop((0, 0)), statuses.pop((0, 1))) == ("COMPLETED", "FAILED")
    assert set(statuses.values()) == {"CANCELLED"}
    assert (await service.announced(request_id))["webhook"]["status"] == "DELIVERED"
    assert events(receiver) == [("request.cancelled", 1, f"msg_{request_id}")]
    hold.release()
    asked = len(origin.asked)
    later = await service.upload([[origin.url("coffee.png")]])
    await service.finished(later)
    assert origin.asked[asked:] == ["coffee.png"], "nothing of it is fetched any more"

    async def swept() -> bool:  # up to a quarter of a second late, it is stored and found unwanted
        return await service.objects(request_id) == [f"{request_id}/0-0.jpg"]

    await wait_until(swept, "nothing of it is left but what was done before")
    rows = await service.report(request_id)
    assert len(rows) == 321


async def test_a_small_request_is_cancelled_when_the_call_is_answered(
    service: Service, origin: Origin, hold: Any
) -> None:
    request_id = await service.upload([[origin.add("slow.jpg", hold.handler)]])
    for _ in range(2):
        status, answer = await service.post(f"/api/requests/{request_id}/cancel")
        assert (status, answer) == (202, {"requestId": request_id, "status": "CANCELLED"})
    assert await ends(service, request_id) == [(0, 0, "CANCELLED", None)]


async def test_what_has_finished_cannot_be_cancelled(
    service: Service, receiver: Receiver, partial: str
) -> None:
    status, problem = await service.post(f"/api/requests/{partial}/cancel")
    assert (status, problem["code"]) == (409, "ALREADY_FINISHED")
    assert (await service.get(f"/status/{partial}"))[1]["status"] == "PARTIAL"
    assert len(receiver.received) == 1


async def test_what_was_cancelled_cannot_be_retried(
    service: Service, origin: Origin, hold: Any
) -> None:
    request_id = await service.upload(
        [[origin.url("none.jpg"), origin.add("slow.jpg", hold.handler)]]
    )

    async def failed() -> bool:
        return bool((await service.get(f"/status/{request_id}"))[1]["failedImages"])

    await wait_until(failed, "one has failed")
    await service.post(f"/api/requests/{request_id}/cancel")
    status, problem = await service.post(f"/api/requests/{request_id}/retry", json={})
    assert (status, problem["code"]) == (409, "WAS_CANCELLED")


async def test_a_retry_can_be_cancelled(
    service: Service, origin: Origin, receiver: Receiver, hold: Any, partial: str
) -> None:
    origin.add("gone.jpg", hold.handler)
    await service.post(
        f"/api/requests/{partial}/retry", json={"products": [0], "codes": ["FETCH_STATUS"]}
    )

    async def being_fetched() -> bool:
        return origin.asked.count("gone.jpg") == 2

    await wait_until(being_fetched, "it is being fetched")
    await service.post(f"/api/requests/{partial}/cancel")
    found = await service.finished(partial, within_s=3)
    assert (found["status"], found["failedImages"]) == ("CANCELLED", 2)
    await service.announced(partial)
    assert events(receiver)[1] == ("request.cancelled", 2, f"msg_{partial}_2")
    hold.release()
    assert [status for _, _, status, _ in await ends(service, partial)] == [
        "COMPLETED",
        "CANCELLED",
        "FAILED",
        "FAILED",
    ]


# Erase.


async def test_an_erased_request_is_hidden_at_once_and_gone_soon(
    service: Service, partial: str, stored: Any
) -> None:
    other = await service.upload([["http://127.0.0.1:1/none.jpg"]])
    assert len(await service.objects(partial)) == 1
    assert await stored.sources.count_documents({}) == 1
    status, answer = await service.delete(f"/api/requests/{partial}")
    assert (status, answer["requestId"]) == (202, partial)
    await hidden(service, partial)
    await erased(service, partial, stored)
    await hidden(service, partial)
    _, problem = await service.get(f"/status/{partial}")
    at = (await stored.requests.find_one({"_id": partial}))["erasedAt"]
    assert f"{at:%Y-%m-%dT%H:%M:%S}" in problem["detail"]
    assert (await service.finished(other))["status"] == "FAILED"


async def test_erasing_stops_running_work_first_and_announces_nothing(
    service: Service, origin: Origin, receiver: Receiver, hold: Any, stored: Any
) -> None:
    request_id = await service.upload(
        [[origin.url("rocket.jpg")], [origin.add("slow.jpg", hold.handler)]] * 150,
        webhookUrl=receiver.url,
    )

    async def under_way() -> bool:
        return bool(await service.objects(request_id)) and "slow.jpg" in origin.asked

    await wait_until(under_way, "it is under way")
    assert (await service.delete(f"/api/requests/{request_id}"))[0] == 202
    await hidden(service, request_id)
    await erased(service, request_id, stored)
    hold.release()
    asked = len(origin.asked)
    await service.finished(await service.upload([[origin.url("coffee.png")]]))
    assert origin.asked[asked:] == ["coffee.png"]
    assert await service.objects(request_id) == []
    assert receiver.received == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/requests/nope/retry"),
        ("POST", "/api/requests/nope/cancel"),
        ("DELETE", "/api/requests/nope"),
    ],
)
async def test_what_is_not_there_cannot_be_changed(
    service: Service, method: str, path: str
) -> None:
    async with service.session.request(method, f"{service.url}{path}") as response:
        assert response.status == 404
        assert (await response.json())["code"] == "NOT_FOUND"


# Retention.


@pytest.mark.parametrize("kind", ["json", "csv", "form"])
async def test_a_request_says_when_it_is_to_go(
    service: Service, origin: Origin, stored: Any, kind: str
) -> None:
    url = origin.url("rocket.jpg")
    sheet = f"Serial Number,Product Name,Input Image Urls\n1,Chair,{url}\n"
    form = {"file": sheet, "expiresInDays": "0.00001"}
    product = {"serialNumber": "1", "productName": "Chair", "inputUrls": [url]}
    requests: dict[str, dict[str, Any]] = {
        "json": {"json": {"products": [product], "expiresInDays": SOON}},
        "csv": {
            "data": sheet,
            "headers": {"Content-Type": "text/csv"},
            "params": {"expiresInDays": "0.00001"},
        },
        "form": {"data": _multipart(form)},
    }
    kept = await service.upload([[url]])
    status, answer = await service.post("/api/upload", **requests[kind])
    assert status == 202, answer

    async def gone() -> bool:
        status, _ = await service.get(f"/status/{answer['requestId']}")
        return status == 410

    await wait_until(gone, "its time is over")
    await erased(service, answer["requestId"], stored)
    assert (await service.finished(kept))["status"] == "COMPLETED"


def _multipart(fields: dict[str, str]) -> Any:
    import aiohttp

    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in fields.items():
        form.add_field(name, value)
    return form


async def test_work_that_is_not_finished_does_not_expire(
    service: Service, origin: Origin, hold: Any, stored: Any
) -> None:
    slow = origin.add("slow.jpg", hold.handler)
    request_id = await service.upload([[slow]], expiresInDays=SOON)
    early = await service.upload([[origin.url("rocket.jpg")]], expiresInDays=SOON)

    async def gone() -> bool:
        return (await service.get(f"/status/{early}"))[0] == 410

    await wait_until(gone, "the other one's time is over")
    assert (await service.get(f"/status/{request_id}"))[1]["status"] == "PROCESSING"
    expires = (await stored.requests.find_one({"_id": request_id}))["expiresAt"]
    assert expires < datetime.now()  # noqa: DTZ005 - the database's times have no zone here
    hold.release()

    async def gone_too() -> bool:
        return (await service.get(f"/status/{request_id}"))[0] == 410

    await wait_until(gone_too, "its time is over, now that it has ended")


async def test_the_operator_says_how_long_anything_is_kept(
    start_service: Any, origin: Origin, stored: Any
) -> None:
    service = await start_service(retention={"days": SOON})
    status, problem = await service.post(
        "/api/upload",
        json={
            "products": [
                {"serialNumber": "1", "productName": "A", "inputUrls": [origin.url("rocket.jpg")]}
            ],
            "expiresInDays": 1,
        },
    )
    assert (status, problem["errors"][0]["loc"]) == (422, ["expiresInDays"])
    request_id = await service.upload([[origin.url("rocket.jpg")]])

    async def gone() -> bool:
        return (await service.get(f"/status/{request_id}"))[0] == 410

    await wait_until(gone, "its time is over")
    await erased(service, request_id, stored)


@pytest.mark.parametrize("days", [0, -1, "soon", 40_000])
async def test_a_time_that_makes_no_sense_is_refused(
    service: Service, origin: Origin, days: Any
) -> None:
    product = {"serialNumber": "1", "productName": "A", "inputUrls": [origin.url("rocket.jpg")]}
    body = {"products": [product], "expiresInDays": days}
    status, problem = await service.post("/api/upload", json=body)
    assert (status, problem["errors"][0]["loc"]) == (422, ["expiresInDays"])
