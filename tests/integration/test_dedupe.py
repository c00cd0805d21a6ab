"""The same work is done once: within a request, and for a tenant's next one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from pymongo import AsyncMongoClient
from yarl import URL

from imgsvc.auth import credentials
from imgsvc.domain.model import Scope
from imgsvc.ledger import Ledger
from tests.support import Origin, Service, wait_until

Start = Callable[..., Awaitable[Service]]


def asked(origin: Origin, name: str) -> int:
    return sum(each == name for each in origin.asked)


async def objects(service: Service, request_id: str) -> list[str]:
    """Names of what the bucket holds of a request."""
    gcs = service.settings.gcs
    url = f"{gcs.emulator_host}/storage/v1/b/{gcs.bucket}/o"
    query = {"prefix": request_id}
    async with aiohttp.ClientSession() as session, session.get(url, params=query) as response:
        found = await response.json()
    return [item["name"] for item in found.get("items", [])]


# Within one request.


async def test_an_address_that_comes_again_is_worked_on_once(
    service: Service, origin: Origin
) -> None:
    once, other = origin.url("rocket.jpg"), origin.url("coffee.png")
    request_id = await service.upload([[once, other, once], [once]])
    done = await service.finished(request_id)
    assert (done["status"], done["processedImages"], done["processedProducts"]) == (
        "COMPLETED",
        4,
        2,
    )
    assert done["sharedImages"] == 2
    assert asked(origin, "rocket.jpg") == asked(origin, "coffee.png") == 1
    images = await service.images(request_id)
    assert len({image["outputUrl"] for image in images if image["inputUrl"] == once}) == 1
    assert sorted(await objects(service, request_id)) == [
        f"{request_id}/0-0.jpg",
        f"{request_id}/0-1.png",
    ]
    assert done["bytesOut"] == sum(image["bytesOut"] for image in images)


async def test_copies_of_an_image_that_fails_fail_as_it_does(
    service: Service, origin: Origin
) -> None:
    gone = origin.url("gone.jpg")
    request_id = await service.upload([[gone], [origin.url("rocket.jpg"), gone]])
    done = await service.finished(request_id)
    assert (done["status"], done["failedImages"], done["sharedImages"]) == ("PARTIAL", 2, 0)
    assert asked(origin, "gone.jpg") == 1
    codes = [
        image["error"] and image["error"]["code"] for image in await service.images(request_id)
    ]
    assert codes == ["FETCH_STATUS", None, "FETCH_STATUS"]


async def test_each_is_worked_on_for_itself_when_that_is_wanted(
    start_service: Start, origin: Origin
) -> None:
    service = await start_service(dedupe={"enabled": False})
    request_id = await service.upload([[origin.url("rocket.jpg")] * 2])
    assert (await service.finished(request_id))["sharedImages"] == 0
    assert asked(origin, "rocket.jpg") == 2
    assert len(await objects(service, request_id)) == 2


@pytest.mark.parametrize("name", ["rocket.jpg", "gone.jpg"])
async def test_copies_that_a_crash_left_open_are_found(
    start_service: Start, origin: Origin, name: str
) -> None:
    service = await start_service(redis={"reconcile_s": 0.3}, dedupe={"ttl_s": 0})
    request_id = await service.upload([[origin.url(name)], [origin.url(name)]])
    before = await service.finished(request_id)
    mongo = service.settings.mongo
    async with AsyncMongoClient[dict[str, Any]](mongo.uri.get_secret_value()) as client:
        database = client[mongo.database]
        # As it is if the replica dies between the original's end and its copy's.
        await database.products.update_one(
            {"_id": f"{request_id}/1"},
            {"$set": {"images.0.status": "PENDING", "open": 1, "closed": False}},
        )
        await database.requests.update_one({"_id": request_id}, {"$set": {"status": "PROCESSING"}})
    after = await service.finished(request_id)
    ignored = ("updatedAt",)
    assert {k: v for k, v in after.items() if k not in ignored} == {
        k: v for k, v in before.items() if k not in ignored
    }
    # A result is shared; where there is none, it is tried again.
    assert asked(origin, name) == (1 if name == "rocket.jpg" else 2)


# Across requests.


async def twice(service: Service, url: str, **second: Any) -> list[dict[str, Any]]:
    """The image of two requests, one after the other, and their counts of reused images."""
    found = []
    for more in ({}, second):
        request_id = await service.upload([[url]], **more)
        done = await service.finished(request_id)
        (image,) = await service.images(request_id)
        found.append({**image, "reused": done["reusedImages"], "requestId": request_id})
    return found


async def test_a_source_that_its_origin_calls_unchanged_is_not_fetched_again(
    service: Service, origin: Origin
) -> None:
    conditions: list[str | None] = []

    async def with_etag(request: web.Request) -> web.Response:
        conditions.append(request.headers.get("If-None-Match"))
        if conditions[-1] == '"one"':
            return web.Response(status=304, headers={"ETag": '"one"'})
        return web.Response(body=origin.photo("rocket.jpg"), headers={"ETag": '"one"'})

    first, second = await twice(service, origin.add("tagged.jpg", with_etag))
    assert conditions == [None, '"one"']
    assert (first["reused"], second["reused"]) == (0, 1)
    own = ("outputUrl", "reused", "requestId")
    assert {k: v for k, v in first.items() if k not in own} == {
        k: v for k, v in second.items() if k not in own
    }
    assert first["requestId"] in first["outputUrl"]
    assert second["requestId"] in second["outputUrl"]
    assert await service.stored(first["outputUrl"]) == await service.stored(second["outputUrl"])


async def test_a_source_with_the_same_bytes_is_not_encoded_again(
    service: Service, origin: Origin
) -> None:
    first, second = await twice(service, origin.url("rocket.jpg"))
    assert asked(origin, "rocket.jpg") == 2, "it says nothing by which it could be asked"
    assert (first["reused"], second["reused"]) == (0, 1)
    assert await service.stored(first["outputUrl"]) == await service.stored(second["outputUrl"])


async def test_a_source_that_changed_is_worked_on(service: Service, origin: Origin) -> None:
    bodies = iter([origin.photo("rocket.jpg"), origin.photo("retina.jpg")])

    async def changing(_: web.Request) -> web.Response:
        return web.Response(body=next(bodies), headers={"ETag": f'"{id(bodies)}"'})

    first, second = await twice(service, origin.add("changing.jpg", changing))
    assert (first["width"], second["width"], second["reused"]) == (640, 1411, 0)


async def test_another_recipe_is_other_work(service: Service, origin: Origin) -> None:
    _, second = await twice(service, origin.url("rocket.jpg"), options={"format": "webp"})
    assert (second["format"], second["reused"]) == ("webp", 0)


async def test_a_result_that_is_gone_is_made_again(service: Service, origin: Origin) -> None:
    url = origin.url("rocket.jpg")
    request_id = await service.upload([[url]])
    await service.finished(request_id)
    gcs = service.settings.gcs
    where = f"{gcs.emulator_host}/storage/v1/b/{gcs.bucket}/o/{request_id}%2F0-0.jpg"
    address = URL(where, encoded=True)
    async with aiohttp.ClientSession() as session, session.delete(address) as response:
        assert response.status < 300
    again = await service.upload([[url]])
    done = await service.finished(again)
    assert (done["status"], done["reusedImages"]) == ("COMPLETED", 0)
    (image,) = await service.images(again)
    assert len(await service.stored(image["outputUrl"])) == image["bytesOut"]


async def test_memories_are_good_for_a_time(start_service: Start, origin: Origin) -> None:
    service = await start_service(dedupe={"ttl_s": 0})
    _, second = await twice(service, origin.url("rocket.jpg"))
    assert second["reused"] == 0


async def test_what_is_remembered_is_the_tenants_own(start_service: Start, origin: Origin) -> None:
    service = await start_service(auth={"mode": "keys"})
    ledger = Ledger(service.settings.mongo)
    reused = []
    for tenant in ("first", "second", "first"):
        key = credentials.new()
        await ledger.api_keys.insert(key.id, key.digest, tenant, frozenset(Scope), None)
        service.session.headers["Authorization"] = f"Bearer {key}"
        request_id = await service.upload([[origin.url("rocket.jpg")]])
        reused.append((await service.finished(request_id))["reusedImages"])
    ledger.close()
    assert reused == [0, 0, 1]


async def test_metrics_tell_how_much_work_was_saved(service: Service, origin: Origin) -> None:
    url = origin.url("rocket.jpg")
    await service.finished(await service.upload([[url, url]]))
    await service.finished(await service.upload([[url]]))

    async def counted() -> bool:
        async with service.session.get(f"{service.url}/metrics") as response:
            text = await response.text()
        return (
            'imgsvc_images_saved_total{how="shared"} 1.0' in text
            and 'imgsvc_images_saved_total{how="reused"} 1.0' in text
        )

    await wait_until(counted, "both are counted")
