"""The calls about webhooks: choosing, looking at attempts, sending again, trying out."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
import redis.asyncio
from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from structlog.testing import capture_logs

from imgsvc.webhooks.signature import new_secret
from tests.conftest import SECRET, free_port
from tests.support import Origin, Receiver, Service, wait_until

CSV = "Serial Number,Product Name,Input Image Urls\n"


async def post_form(service: Service, **fields: str) -> tuple[int, Any]:
    form = aiohttp.FormData()
    for name, value in fields.items():
        form.add_field(name, value, **({"filename": "a.csv"} if name == "file" else {}))
    return await service.post("/api/upload", data=form)


# Choosing.


async def test_a_request_can_choose_its_secret_headers_and_events(
    service: Service, origin: Origin, receiver: Receiver
) -> None:
    mine = new_secret()
    chosen = {
        "url": receiver.url,
        "events": ["request.failed", "request.partial"],
        "secret": mine,
        "headers": {"Authorization": "Bearer abc", "X-Tenant": "7"},
    }
    failed = await service.upload([[origin.url("none.jpg")]], webhook=chosen)
    assert (await service.announced(failed))["webhook"] == {"status": "DELIVERED", "attempts": 1}
    (received,) = receiver.received
    assert received.headers["authorization"] == "Bearer abc"
    assert received.headers["x-tenant"] == "7"
    assert Webhook(mine).verify(received.body, received.headers)["type"] == "request.failed"
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(received.body, received.headers)


async def test_an_end_that_was_not_chosen_is_not_announced_and_shows_no_webhook(
    service: Service, origin: Origin, receiver: Receiver
) -> None:
    chosen = {"url": receiver.url, "events": ["request.failed"]}
    well = await service.upload([[origin.url("rocket.jpg")]], webhook=chosen)
    assert (await service.finished(well))["webhook"] is None
    badly = await service.upload([[origin.url("none.jpg")]], webhook=chosen)
    await service.announced(badly)
    assert [json.loads(one.body)["data"]["requestId"] for one in receiver.received] == [badly]
    _, found = await service.get(f"/api/requests/{well}/deliveries")
    assert found == {"attempts": [], "nextAttemptAt": None}


async def test_a_webhook_alone_hears_of_every_end(
    service: Service, origin: Origin, receiver: Receiver
) -> None:
    for name in ("rocket.jpg", "none.jpg"):
        request_id = await service.upload([[origin.url(name)]], webhook={"url": receiver.url})
        await service.announced(request_id)
    types = [json.loads(one.body)["type"] for one in receiver.received]
    assert types == ["request.completed", "request.failed"]


async def test_a_form_and_a_csv_take_a_webhook_as_json(
    service: Service, origin: Origin, receiver: Receiver
) -> None:
    mine = new_secret()
    file = f"{CSV}1,A,{origin.url('none.jpg')}\n"
    chosen = json.dumps({"url": receiver.url, "secret": mine, "headers": {"X-A": "1"}})
    status, answer = await post_form(service, file=file, webhook=chosen)
    assert status == 202, answer
    await service.announced(answer["requestId"])
    Webhook(mine).verify(receiver.received[0].body, receiver.received[0].headers)

    status, answer = await service.post(
        "/api/upload",
        params={"webhook": json.dumps({"url": receiver.url, "events": ["request.failed"]})},
        data=file,
        headers={"Content-Type": "text/csv"},
    )
    assert status == 202, answer
    await service.announced(answer["requestId"])
    Webhook(SECRET).verify(receiver.received[1].body, receiver.received[1].headers)


async def test_secret_and_headers_do_not_go_into_an_address(service: Service) -> None:
    for secretly in ({"secret": new_secret()}, {"headers": {"Authorization": "Bearer abc"}}):
        status, problem = await service.post(
            "/api/upload",
            params={"webhook": json.dumps({"url": "https://example.com/hook", **secretly})},
            data=f"{CSV}1,A,https://example.com/a.jpg\n",
            headers={"Content-Type": "text/csv"},
        )
        assert (status, problem["errors"][0]["loc"]) == (422, ["webhook"])
        assert "logs" in problem["errors"][0]["msg"]


GOOD: dict[str, Any] = {"url": "https://example.com/hook"}
REFUSED: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "both ways": ({"webhook": GOOD, "webhookUrl": GOOD["url"]}, ["webhook"]),
    "no URL": ({"webhook": {}}, ["webhook", "url"]),
    "no http URL": ({"webhook": {"url": "ftp://example.com"}}, ["webhook", "url"]),
    "a blocked URL": ({"webhook": {"url": "http://169.254.169.254/"}}, ["webhook", "url"]),
    "a blocked webhookUrl": ({"webhookUrl": "http://10.0.0.1/"}, ["webhookUrl"]),
    "no events": ({"webhook": {**GOOD, "events": []}}, ["webhook", "events"]),
    "an unknown event": (
        {"webhook": {**GOOD, "events": ["request.failed", "x"]}},
        ["webhook", "events", 1],
    ),
    "an unknown field": ({"webhook": {**GOOD, "retries": 3}}, ["webhook", "retries"]),
    "a weak secret": ({"webhook": {**GOOD, "secret": "hunter2"}}, ["webhook", "secret"]),
    "headers of one name": (
        {"webhook": {**GOOD, "headers": {"X-A": "1", "x-a": "2"}}},
        ["webhook", "headers"],
    ),
    "too many headers": (
        {"webhook": {**GOOD, "headers": {f"X-{i}": "1" for i in range(11)}}},
        ["webhook", "headers"],
    ),
    **{
        f"the header {name!r}": (
            {"webhook": {**GOOD, "headers": {name: "hunter2"}}},
            ["webhook", "headers", name, "[key]"],
        )
        for name in (
            "webhook-id",
            "Host",
            "Content-Type",
            "Content-Length",
            "Transfer-Encoding",
            "Connection",
            "Cookie",
            "X-Forwarded-For",
            "X-A\r\nHost",
            "X-",
            "X-Ä",
            "",
        )
    },
    **{
        f"the value {value!r}": (
            {"webhook": {**GOOD, "headers": {"X-A": value}}},
            ["webhook", "headers", "X-A"],
        )
        for value in ("a\r\nX-B: c", "a\0", "ä", "", " a", "a" * 1001, "\t")
    },
}


async def test_what_cannot_be_done_is_refused_with_its_place(start_service: Any) -> None:
    service = await start_service(net={"allow": ["192.0.2.0/24"]})
    product = {"serialNumber": "1", "productName": "A", "inputUrls": ["https://example.com/a.jpg"]}
    for what, (body, place) in REFUSED.items():
        status, problem = await service.post("/api/upload", json={"products": [product], **body})
        assert (status, problem["code"]) == (422, "VALIDATION_FAILED"), what
        assert [error["loc"] for error in problem["errors"]] == [place], what
        assert "hunter2" not in json.dumps(problem), what
    status, problem = await post_form(
        service, file=f"{CSV}1,A,https://example.com/a.jpg\n", webhook='{"url": 3, "secret": "s"}'
    )
    assert status == 422
    assert [e["loc"] for e in problem["errors"]] == [["webhook", "url"], ["webhook", "secret"]]


async def test_a_secret_is_never_shown_nor_logged(
    service: Service, origin: Origin, receiver: Receiver
) -> None:
    mine = new_secret()
    receiver.script = [500]
    chosen = {"url": receiver.url, "secret": mine, "headers": {"Authorization": "hunter2"}}
    with capture_logs() as lines:
        request_id = await service.upload([[origin.url("none.jpg")]], webhook=chosen)
        await service.announced(request_id)
        told = [
            str(await service.get(path))
            for path in (
                f"/status/{request_id}",
                f"/api/requests/{request_id}/deliveries",
                f"/api/requests/{request_id}/images",
                "/api/requests",
            )
        ]
        told.append(str(await service.report(request_id, columns="full")))
    assert len(lines) > 5
    told += [str(lines), *(one.body.decode() for one in receiver.received)]
    assert not any(mine in text or "hunter2" in text for text in told)


# Looking.


async def test_deliveries_tell_when_the_next_attempt_is(
    start_service: Any, origin: Origin, receiver: Receiver
) -> None:
    service = await start_service(webhook={"schedule": [3600], "jitter": 0})
    receiver.script = [500]
    request_id = await service.upload([[origin.url("none.jpg")]], webhookUrl=receiver.url)

    async def waits() -> Any:
        _, found = await service.get(f"/api/requests/{request_id}/deliveries")
        return found if found["attempts"] and found["nextAttemptAt"] else None

    found = await wait_until(waits, "the first attempt failed")
    (attempt,) = found["attempts"]
    assert list(attempt) == ["attempt", "at", "status", "latencyMs", "error"]
    assert (attempt["attempt"], attempt["status"], attempt["error"]) == (1, 500, "status 500")
    assert attempt["latencyMs"] >= 0
    assert attempt["at"].endswith("Z")
    assert found["nextAttemptAt"].endswith("Z")
    assert attempt["at"] < found["nextAttemptAt"]
    assert (await service.get(f"/status/{request_id}"))[1]["webhook"]["status"] == "PENDING"
    await flush_what_waits_an_hour(service)


async def flush_what_waits_an_hour(service: Service) -> None:
    """Have the check for leftovers look only at what this test is not about."""
    async with redis.asyncio.Redis(port=service.settings.redis.port) as client:
        keys = ("notify:delayed", "notify:waiting", "in-flight")
        await client.delete(*(f"{{imgsvc}}:{key}" for key in keys))


# Again.


async def test_a_replay_is_a_new_cycle_with_the_same_id(
    start_service: Any, origin: Origin, receiver: Receiver
) -> None:
    service = await start_service(webhook={"attempts": 2})
    receiver.script = [500, 500, 500, 200]
    request_id = await service.upload([[origin.url("none.jpg")]], webhookUrl=receiver.url)
    assert (await service.announced(request_id))["webhook"]["status"] == "FAILED"

    status, answer = await service.post(f"/api/requests/{request_id}/deliveries/replay")
    assert (status, answer) == (
        202,
        {"requestId": request_id, "webhook": {"status": "PENDING", "attempts": 0}},
    )
    found = await service.announced(request_id)
    assert found["webhook"] == {"status": "DELIVERED", "attempts": 2}
    assert {one.headers["webhook-id"] for one in receiver.received} == {f"msg_{request_id}"}
    _, listed = await service.get(f"/api/requests/{request_id}/deliveries")
    assert [(a["attempt"], a["status"]) for a in listed["attempts"]] == [
        (1, 500),
        (2, 500),
        (1, 500),
        (2, 200),
    ]
    # What was delivered can be sent once more, too.
    status, _ = await service.post(f"/api/requests/{request_id}/deliveries/replay")
    assert status == 202
    await service.announced(request_id)
    assert len(receiver.received) == 5


async def test_there_is_nothing_to_replay_before_the_end_while_it_is_sent_or_without_a_webhook(
    service: Service, origin: Origin, receiver: Receiver, hold: Any
) -> None:
    async def replay(request_id: str) -> tuple[int, str]:
        status, problem = await service.post(f"/api/requests/{request_id}/deliveries/replay")
        return status, problem["code"]

    assert await replay("nope") == (404, "NOT_FOUND")

    running = await service.upload(
        [[origin.add("slow.jpg", hold.handler)]], webhookUrl=receiver.url
    )
    assert await replay(running) == (409, "NOT_FINISHED")
    receiver.script = [hold.handler]
    sending = await service.upload([[origin.url("none.jpg")]], webhookUrl=receiver.url)
    await service.finished(sending)
    assert await replay(sending) == (409, "WEBHOOK_PENDING")
    hold.release()
    await service.announced(running)
    await service.announced(sending)

    silent = await service.upload([[origin.url("none.jpg")]])
    await service.finished(silent)
    assert await replay(silent) == (409, "NO_WEBHOOK")


# Trying out.


async def test_a_test_is_signed_and_tells_what_happened(
    service: Service, receiver: Receiver
) -> None:
    mine = new_secret()
    receiver.script = [204, 500]
    status, told = await service.post("/api/webhooks/test", json={"url": receiver.url})
    assert status == 200
    assert told == {
        "delivered": True,
        "status": 204,
        "latencyMs": told["latencyMs"],
        "error": None,
    }
    status, told = await service.post(
        "/api/webhooks/test",
        json={"url": receiver.url, "secret": mine, "headers": {"X-A": "1"}},
    )
    assert (status, told["delivered"], told["status"]) == (200, False, 500)
    assert told["error"] == "status 500"
    first, second = receiver.received
    assert Webhook(SECRET).verify(first.body, first.headers)["type"] == "webhook.test"
    assert Webhook(mine).verify(second.body, second.headers)["type"] == "webhook.test"
    assert second.headers["x-a"] == "1"
    assert first.headers["webhook-id"] != second.headers["webhook-id"]


async def test_a_test_that_gets_no_answer_says_why(start_service: Any, receiver: Receiver) -> None:
    service = await start_service(webhook={"timeout_s": 0.3})
    over = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    receiver.script = [hang]
    for url, error in (
        (receiver.url, "FETCH_TIMEOUT"),
        (f"http://127.0.0.1:{free_port()}", "CONNECT_FAILED"),
    ):
        status, told = await service.post("/api/webhooks/test", json={"url": url})
        assert (status, told["delivered"], told["status"]) == (200, False, None)
        assert told["error"] == error
    over.set()


async def test_a_test_goes_only_where_webhooks_go(start_service: Any, receiver: Receiver) -> None:
    service = await start_service(net={"allow": ["192.0.2.0/24"]})
    status, problem = await service.post("/api/webhooks/test", json={"url": receiver.url})
    assert (status, problem["errors"][0]["loc"]) == (422, ["url"])
    by_name = receiver.url.replace("127.0.0.1", "localhost")
    status, told = await service.post("/api/webhooks/test", json={"url": by_name})
    assert (status, told["error"]) == (200, "URL_BLOCKED")
    assert receiver.received == []


async def test_tests_are_refused_like_uploads(start_service: Any, receiver: Receiver) -> None:
    service = await start_service(ratelimit={"enabled": True, "uploads_per_minute": 4})
    for sent, code in (
        ({"data": b"{}"}, "UNSUPPORTED_MEDIA_TYPE"),
        ({"json": {"url": receiver.url, "secret": "hunter2"}}, "VALIDATION_FAILED"),
        ({"json": {"url": receiver.url, "x": "y" * 70_000}}, "BODY_TOO_LARGE"),
        ({"json": [1]}, "VALIDATION_FAILED"),
        ({"json": {"url": receiver.url}}, "RATE_LIMITED"),
    ):
        _, problem = await service.post("/api/webhooks/test", **sent)
        assert problem["code"] == code
    assert receiver.received == []
