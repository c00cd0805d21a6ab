"""Uploads that are sent once more with the same Idempotency-Key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from multidict import CIMultiDict

from tests.support import Origin, Service

KEY = {"Idempotency-Key": "4711"}
CSV = "Serial Number,Product Name,Input Image Urls\n"


@pytest.fixture
def body(origin: Origin) -> dict[str, Any]:
    """One product with one picture."""
    product = {"serialNumber": "1", "productName": "Chair", "inputUrls": [origin.url("rocket.jpg")]}
    return {"products": [product]}


async def ids(service: Service) -> list[str]:
    _, page = await service.get("/api/requests")
    return [found["requestId"] for found in page["requests"]]


async def test_the_first_answer_is_given_again(service: Service, body: dict[str, Any]) -> None:
    first = await service.post("/api/upload", json=body, headers=KEY)
    await service.finished(first[1]["requestId"])
    assert await service.post("/api/upload", json=body, headers=KEY) == first
    assert first == (202, {"requestId": (await ids(service))[0], "status": "PENDING"})
    assert len(await ids(service)) == 1


async def test_also_while_the_first_is_being_written(
    service: Service, body: dict[str, Any]
) -> None:
    calls = [service.post("/api/upload", json=body, headers=KEY) for _ in range(6)]
    answered = await asyncio.gather(*calls)
    assert {status for status, _ in answered} == {202}
    assert {answer["requestId"] for _, answer in answered} == set(await ids(service))
    assert len(await ids(service)) == 1
    await service.finished(answered[0][1]["requestId"])


async def test_a_form_is_the_same_whatever_its_boundary(service: Service, origin: Origin) -> None:
    def form(name: str) -> aiohttp.FormData:
        made = aiohttp.FormData()
        made.add_field("file", f"{CSV}7,{name},{origin.url('rocket.jpg')}\n", filename="p.csv")
        return made

    _, first = await service.post("/api/upload", data=form("Lamp"), headers=KEY)
    _, again = await service.post("/api/upload", data=form("Lamp"), headers=KEY)
    assert again == first
    status, refused = await service.post("/api/upload", data=form("Table"), headers=KEY)
    assert (status, refused["code"]) == (422, "IDEMPOTENCY_CONFLICT")
    await service.finished(first["requestId"])


async def test_a_key_with_another_body_is_refused(service: Service, body: dict[str, Any]) -> None:
    _, first = await service.post("/api/upload", json=body, headers=KEY)
    other = {**body, "options": {"quality": 50}}
    status, refused = await service.post("/api/upload", json=other, headers=KEY)
    assert (status, refused["code"]) == (422, "IDEMPOTENCY_CONFLICT")
    assert "new key" in refused["detail"]
    assert await ids(service) == [first["requestId"]]
    await service.finished(first["requestId"])


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 256])
async def test_a_key_that_cannot_be_one_is_refused(
    service: Service, body: dict[str, Any], key: str
) -> None:
    status, refused = await service.post("/api/upload", json=body, headers={"Idempotency-Key": key})
    assert (status, refused["errors"][0]["loc"]) == (422, ["Idempotency-Key"])


async def test_two_keys_are_refused(service: Service, body: dict[str, Any]) -> None:
    keys = CIMultiDict([("Idempotency-Key", "one"), ("Idempotency-Key", "other")])
    status, refused = await service.post("/api/upload", json=body, headers=keys)
    assert (status, refused["errors"][0]["loc"]) == (422, ["Idempotency-Key"])
    assert await ids(service) == []


async def test_a_repeated_upload_is_answered_even_when_no_new_one_is(
    start_service: Callable[..., Awaitable[Service]], origin: Origin, body: dict[str, Any]
) -> None:
    service = await start_service(http={"backlog_limit": 1})
    gate = asyncio.Event()

    async def late(_: web.Request) -> web.Response:
        await gate.wait()
        return web.Response(body=origin.photo("rocket.jpg"))

    origin.add("rocket.jpg", late)
    first = await service.post("/api/upload", json=body, headers=KEY)
    assert await service.post("/api/upload", json=body, headers=KEY) == first
    status, refused = await service.post("/api/upload", json=body)
    assert (status, refused["code"]) == (503, "OVERLOADED")
    gate.set()
    await service.finished(first[1]["requestId"])
