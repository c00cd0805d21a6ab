"""Erased is erased: neither MongoDB nor Redis holds anything of a request but its tombstone."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import redis
from aiohttp import web
from pymongo import AsyncMongoClient

from imgsvc.embedded.servers import EmbeddedServers
from imgsvc.runtime.settings import Settings
from tests.support import Origin, Receiver, Service, wait_until

KEY = {"Idempotency-Key": "4711"}
SOON_S = 10.0


@pytest.fixture
async def database(make_settings: Callable[..., Settings]) -> AsyncIterator[Any]:
    """The database as another client sees it."""
    mongo = make_settings().mongo
    async with AsyncMongoClient(mongo.uri.get_secret_value()) as client:
        yield client[mongo.database]


async def in_mongodb(database: Any, *traces: str) -> list[str]:
    """Documents with one of these in them, but for tombstones."""
    found = []
    for name in await database.list_collection_names():
        async for document in database[name].find({}):
            is_tombstone = name == "requests" and "erasedAt" in document
            if not is_tombstone and any(trace in repr(document) for trace in traces):
                found.append(f"{name}: {document}")
    return found


def in_redis(servers: EmbeddedServers, *traces: str) -> list[str]:
    """Keys whose names or contents have one of these in them."""
    found = []
    read: dict[str, Callable[[Any, str], Any]] = {
        "string": lambda client, key: client.get(key),
        "hash": lambda client, key: client.hgetall(key),
        "zset": lambda client, key: client.zrange(key, 0, -1),
        "set": lambda client, key: client.smembers(key),
        "list": lambda client, key: client.lrange(key, 0, -1),
        "stream": lambda client, key: client.xrange(key),
    }
    with redis.Redis(port=servers.endpoints.redis_port, decode_responses=True) as client:
        for key in client.scan_iter():
            content = f"{key}: {read[client.type(key)](client, key)}"
            if any(trace in content for trace in traces):
                found.append(content)
    return found


def body(*urls: str, **more: Any) -> dict[str, Any]:
    product = {"serialNumber": "1", "productName": "Chair", "inputUrls": urls}
    return {"products": [product], **more}


async def erase(service: Service, request_id: str) -> None:
    async def done() -> bool:
        status, answer = await service.delete(f"/api/requests/{request_id}")
        assert status == 202
        return bool(answer["erased"])

    await wait_until(done, "it is erased")


async def resting(_: web.Request) -> web.Response:
    return web.Response(status=503, headers={"Retry-After": "100"})


async def test_nothing_is_left_of_a_request_whose_messages_wait(  # noqa: PLR0917 - fixtures
    start_service: Callable[..., Awaitable[Service]],
    servers: EmbeddedServers,
    database: Any,
    origin: Origin,
    neighbour: Origin,
    receiver: Receiver,
) -> None:
    """Its webhook waits for its second attempt; another one's images wait for their origin."""
    service = await start_service(webhook={"delay_ms": 100_000})
    receiver.script = [500, 500]
    ids = []
    for urls in ([origin.url("rocket.jpg")], [neighbour.add("rest.jpg", resting)]):
        posted = body(*urls, webhookUrl=receiver.url)
        headers = {"Idempotency-Key": f"key-{len(ids)}"}
        status, answer = await service.post("/api/upload", json=posted, headers=headers)
        assert status == 202
        ids.append(answer["requestId"])
    announced = ids[0]
    [digest] = [e["digest"] async for e in database.intakes.find({"request": announced})]
    entry = hashlib.sha256(b"nobody\x00key-0").hexdigest()
    assert await in_mongodb(database, entry), "the test looks for the right key"

    async def messages_wait() -> bool:
        return all(len(in_redis(servers, one)) >= 3 for one in ids)

    await wait_until(messages_wait, "each has a message that waits, its mark and its count")
    for request_id in ids:
        await erase(service, request_id)
    traces = (*ids, digest, entry)
    assert await in_mongodb(database, *traces) == []

    async def gone() -> bool:
        return in_redis(servers, *traces) == []

    await wait_until(gone, "Redis has nothing either", SOON_S)
    assert [found["_id"] async for found in database.requests.find({"_id": {"$in": ids}})]


async def test_nor_when_the_webhook_was_under_way(
    start_service: Callable[..., Awaitable[Service]],
    servers: EmbeddedServers,
    database: Any,
    origin: Origin,
    receiver: Receiver,
) -> None:
    service = await start_service(webhook={"delay_ms": 100_000})
    reached, answer = asyncio.Event(), asyncio.Event()

    async def late(_: web.Request) -> web.Response:
        reached.set()
        await answer.wait()
        return web.Response(status=500)

    receiver.script = [late]
    request_id = await service.upload([[origin.url("rocket.jpg")]], webhookUrl=receiver.url)
    await reached.wait()
    await erase(service, request_id)
    answer.set()

    async def gone() -> bool:
        return in_redis(servers, request_id) == []

    await wait_until(gone, "the message settled instead of waiting", SOON_S)
    assert await in_mongodb(database, request_id) == []


async def test_a_key_whose_request_was_erased_makes_a_new_one(
    service: Service, origin: Origin, database: Any
) -> None:
    posted = body(origin.url("rocket.jpg"))
    made = []
    for _ in range(3):
        status, answer = await service.post("/api/upload", json=posted, headers=KEY)
        assert status == 202
        made.append(answer["requestId"])
        assert (await service.finished(made[-1]))["status"] == "COMPLETED"
        # At once, and when it is done.
        await service.delete(f"/api/requests/{made[-1]}")
        if len(made) == 2:
            await erase(service, made[-1])
    assert len(set(made)) == 3
    status, answer = await service.post(
        "/api/upload", json=body(origin.url("coffee.png")), headers=KEY
    )
    assert status == 202, "another body is no conflict: what it would conflict with is gone"
    assert answer["requestId"] not in made
    await service.finished(answer["requestId"])
    again = await service.post("/api/upload", json=body(origin.url("coffee.png")), headers=KEY)
    assert again == (202, answer)
    for request_id in made:
        await erase(service, request_id)
    assert await in_mongodb(database, *made) == []


async def test_many_with_one_key_after_an_erasure_make_one_request(
    service: Service, origin: Origin
) -> None:
    posted = body(origin.url("rocket.jpg"))
    _, first = await service.post("/api/upload", json=posted, headers=KEY)
    await service.finished(first["requestId"])
    await service.delete(f"/api/requests/{first['requestId']}")

    async def post() -> str:
        async def accepted() -> str | None:
            status, answer = await service.post("/api/upload", json=posted, headers=KEY)
            assert status in (202, 503), answer
            return answer["requestId"] if status == 202 else None

        return str(await wait_until(accepted, "it is accepted"))

    ids = set(await asyncio.gather(*(post() for _ in range(8))))
    assert len(ids) == 1
    assert first["requestId"] not in ids
    _, page = await service.get("/api/requests")
    assert [found["requestId"] for found in page["requests"]] == list(ids)
    await service.finished(ids.pop())
