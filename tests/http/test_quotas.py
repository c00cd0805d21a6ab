"""What one tenant may have done: images in a minute, images at a time, bytes in a day."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis

from imgsvc.auth import credentials
from imgsvc.domain.model import Scope
from imgsvc.embedded.servers import EmbeddedServers
from imgsvc.ledger import Ledger
from tests.http.conftest import Hold
from tests.support import Origin, Service, wait_until

UNLIMITED = {
    "enabled": True,
    "uploads_per_minute": 0,
    "reads_per_minute": 0,
    "images_per_minute": 0,
    "images_in_flight": 0,
    "bytes_per_day": 0,
}


async def post(
    service: Service, *urls: str, key: str | None = None, **more: Any
) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Upload one product; status, body and headers."""
    body = {"products": [{"serialNumber": "1", "productName": "A", "inputUrls": urls}], **more}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    url = f"{service.url}/api/upload"
    async with service.session.post(url, json=body, headers=headers) as response:
        return response.status, await response.json(), dict(response.headers)


async def ended(service: Service, answer: dict[str, Any]) -> None:
    await service.finished(answer["requestId"])


async def all_ended(service: Service) -> None:
    async def none_is_open() -> bool:
        _, page = await service.get("/api/requests", status="PENDING")
        _, more = await service.get("/api/requests", status="PROCESSING")
        return not page["requests"] and not more["requests"]

    await wait_until(none_is_open, "what was accepted is finished")


async def test_images_are_what_an_upload_costs(start_service: Any, origin: Origin) -> None:
    service = await start_service(ratelimit={**UNLIMITED, "images_per_minute": 5})
    url = origin.url("none.jpg")
    status, first, headers = await post(service, url, url, url)
    assert status == 202
    assert headers["RateLimit-Policy"] == '"images";q=5;w=60'
    assert headers["RateLimit"] == '"images";r=2;t=36'
    status, problem, headers = await post(service, url, url, url)
    assert (status, problem["code"]) == (429, "QUOTA_EXCEEDED")
    assert "More than 5 images in 60 s" in problem["detail"]
    assert 1 <= int(headers["Retry-After"]) <= 12
    assert headers["RateLimit"].startswith('"images";r=2;')
    # Refused, so not charged: two still fit.
    status, second, headers = await post(service, url, url)
    assert status == 202
    assert headers["RateLimit"].startswith('"images";r=0;')
    await asyncio.gather(ended(service, first), ended(service, second))


async def test_uploads_that_are_refused_cost_nothing(start_service: Any, origin: Origin) -> None:
    service = await start_service(ratelimit={**UNLIMITED, "images_per_minute": 2})
    url = origin.url("none.jpg")
    assert (await post(service, url, "ftp://x/y"))[0] == 422
    assert (await post(service, url, url, webhookUrl="nonsense"))[0] == 422
    assert (await service.post("/api/upload?validate=true", json={"products": []}))[0] == 200
    status, answer, headers = await post(service, url, url)
    assert (status, headers["RateLimit"].startswith('"images";r=0;')) == (202, True)
    await ended(service, answer)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/upload?validate=true"),
        ("POST", "/api/requests/any/retry"),
        ("POST", "/api/requests/any/cancel"),
        ("DELETE", "/api/requests/any"),
    ],
)
async def test_calls_that_cost_no_images_are_counted_as_calls(
    start_service: Any, method: str, path: str
) -> None:
    service = await start_service(ratelimit={**UNLIMITED, "uploads_per_minute": 1})
    codes = []
    for _ in range(2):
        async with service.session.request(
            method, f"{service.url}{path}", json={"products": [0]}
        ) as response:
            codes.append((await response.json()).get("code"))
    assert codes[0] in {None, "NOT_FOUND"}
    assert codes[1] == "RATE_LIMITED"


async def test_what_the_ledger_did_not_take_is_given_back(
    start_service: Any, origin: Origin
) -> None:
    service = await start_service(ratelimit={**UNLIMITED, "images_per_minute": 2})
    service.session.headers["Idempotency-Key"] = "one"
    status, answer, _ = await post(service, origin.url("none.jpg"))
    assert status == 202
    await ended(service, answer)
    # As if that upload had broken off and were being swept at this moment.
    ledger = Ledger(service.settings.mongo)
    await ledger.store.requests.delete_many({})
    await ledger.store.intakes.update_many({}, {"$set": {"state": "REMOVING"}})
    ledger.close()
    for _ in range(3):
        status, problem, headers = await post(service, origin.url("none.jpg"))
        assert (status, problem["code"]) == (503, "UNAVAILABLE")
        assert headers["RateLimit"].startswith('"images";r=1;')
    del service.session.headers["Idempotency-Key"]
    status, answer, _ = await post(service, origin.url("none.jpg"))
    assert status == 202
    await ended(service, answer)


async def test_an_upload_that_is_repeated_is_charged_once(
    start_service: Any, origin: Origin
) -> None:
    service = await start_service(ratelimit={**UNLIMITED, "images_per_minute": 1})
    service.session.headers["Idempotency-Key"] = "one"
    answers = [await post(service, origin.url("none.jpg")) for _ in range(3)]
    assert [status for status, *_ in answers] == [202, 202, 202]
    assert len({answer["requestId"] for _, answer, _ in answers}) == 1
    await ended(service, answers[0][1])


async def test_repeats_at_the_same_time_are_charged_once(
    start_service: Any, origin: Origin
) -> None:
    service = await start_service(ratelimit={**UNLIMITED, "images_per_minute": 7})
    service.session.headers["Idempotency-Key"] = "one"
    answers = await asyncio.gather(*(post(service, origin.url("none.jpg")) for _ in range(6)))
    assert [status for status, *_ in answers] == [202] * 6
    del service.session.headers["Idempotency-Key"]
    _, other, headers = await post(service, origin.url("none.jpg"))
    assert headers["RateLimit"].startswith('"images";r=5;')
    await asyncio.gather(ended(service, answers[0][1]), ended(service, other))


async def retry(
    service: Service, answer: dict[str, Any], **choice: Any
) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Retry an upload by its answer; status, body and headers."""
    url = f"{service.url}/api/requests/{answer['requestId']}/retry"
    async with service.session.post(url, json=choice) as response:
        return response.status, await response.json(), dict(response.headers)


async def test_a_retry_costs_what_an_upload_of_these_images_would(
    start_service: Any, origin: Origin
) -> None:
    service = await start_service(ratelimit={**UNLIMITED, "images_per_minute": 6})
    one, other = origin.url("none.jpg"), origin.url("none-too.jpg")
    _, first, _ = await post(service, one, other, one)  # the third shares what the first gets
    await ended(service, first)
    status, _, headers = await retry(service, first, codes=["DNS_FAILED"])
    assert status == 409, "nothing to do costs nothing"
    status, _, headers = await retry(service, first)
    assert (status, headers["RateLimit-Policy"]) == (202, '"images";q=6;w=60')
    assert headers["RateLimit"].startswith('"images";r=0;')
    await ended(service, first)
    before = await service.get(f"/status/{first['requestId']}")
    status, problem, headers = await retry(service, first)
    assert (status, problem["code"]) == (429, "QUOTA_EXCEEDED")
    assert "More than 6 images in 60 s" in problem["detail"]
    assert 1 <= int(headers["Retry-After"]) <= 30
    assert await service.get(f"/status/{first['requestId']}") == before, "nothing has changed"


async def test_images_that_are_retried_are_at_a_time_with_those_that_are_posted(
    start_service: Any, origin: Origin, hold: Hold
) -> None:
    service = await start_service(ratelimit={**UNLIMITED, "images_in_flight": 3})
    urls = [origin.url(f"none-{n}.jpg") for n in range(3)]
    _, failed, _ = await post(service, *urls)
    await ended(service, failed)
    for n in range(3):
        origin.add(f"none-{n}.jpg", hold.handler)
    _, running, _ = await post(service, origin.add("slow.jpg", hold.handler))
    status, problem, headers = await retry(service, failed)
    assert (status, problem["code"]) == (429, "QUOTA_EXCEEDED")
    assert "1 images are not finished and 3 more would exceed the 3" in problem["detail"]
    assert int(headers["Retry-After"]) > 0
    assert (await service.get(f"/status/{failed['requestId']}"))[1]["status"] == "FAILED"
    await service.post(f"/api/requests/{running['requestId']}/cancel")

    # What was cancelled is finished; what is retried is not, from the answer on.
    status, _, headers = await retry(service, failed)
    assert (status, headers["RateLimit"]) == (202, '"in-flight";r=0')
    _, found = await service.get(f"/status/{failed['requestId']}")
    assert (found["processedImages"], found["failedImages"]) == (0, 0)
    status, problem, _ = await post(service, origin.url("none.jpg"))
    assert (status, problem["code"]) == (429, "QUOTA_EXCEEDED")
    assert (await service.delete(f"/api/requests/{failed['requestId']}"))[0] == 202

    async def room() -> bool:
        return (await post(service, *urls))[0] == 202

    await wait_until(room, "what is erased is finished too")
    hold.release()
    await all_ended(service)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"ratelimit": {**UNLIMITED, "images_in_flight": 4}}, "QUOTA_EXCEEDED"),
        ({"ratelimit": UNLIMITED, "http": {"backlog_limit": 4}}, "OVERLOADED"),
    ],
)
async def test_uploads_and_retries_at_the_same_moment_share_the_room(
    start_service: Any, origin: Origin, hold: Hold, settings: dict[str, Any], code: str
) -> None:
    service = await start_service(**settings)
    _, failed, _ = await post(service, origin.url("gone.jpg"), origin.url("gone-too.jpg"))
    await ended(service, failed)
    for name in ("gone.jpg", "gone-too.jpg", "slow.jpg", "slow-too.jpg"):
        origin.add(name, hold.handler)
    urls = origin.url("slow.jpg"), origin.url("slow-too.jpg")
    answers = await asyncio.gather(
        retry(service, failed), *(post(service, *urls) for _ in range(7))
    )
    codes = [answer.get("code") for _, answer, _ in answers]
    assert (codes.count(None), codes.count(code)) == (2, 6)
    hold.release()
    await all_ended(service)


async def test_a_repeat_at_the_same_moment_needs_no_room_of_its_own(
    start_service: Any, origin: Origin
) -> None:
    service = await start_service(ratelimit={**UNLIMITED, "images_in_flight": 2})
    service.session.headers["Idempotency-Key"] = "one"
    url = origin.url("none.jpg")
    answers = await asyncio.gather(*(post(service, url, url) for _ in range(6)))
    assert [status for status, *_ in answers] == [202] * 6
    await ended(service, answers[0][1])


async def test_no_retry_is_accepted_above_the_backlog(
    start_service: Any, origin: Origin, hold: Hold
) -> None:
    service = await start_service(http={"backlog_limit": 1})
    _, failed, _ = await post(service, origin.url("none.jpg"))
    await ended(service, failed)
    _, running, _ = await post(service, origin.add("slow.jpg", hold.handler))
    status, problem, headers = await retry(service, failed)
    assert (status, problem["code"]) == (503, "OVERLOADED")
    assert int(headers["Retry-After"]) > 0
    hold.release()
    await ended(service, running)
    assert (await retry(service, failed))[0] == 202
    await ended(service, failed)


async def test_a_retry_that_can_never_be_paid_for_says_what_to_do(
    start_service: Any, origin: Origin
) -> None:
    service = await start_service(ratelimit=UNLIMITED)
    _, failed, _ = await post(service, *(origin.url(f"none-{n}.jpg") for n in range(3)))
    await ended(service, failed)
    await service.stop()
    service = await start_service(ratelimit={**UNLIMITED, "images_per_minute": 2})
    status, problem, _ = await retry(service, failed)
    assert (status, problem["code"]) == (422, "VALIDATION_FAILED")
    assert "3 images are more than the 2" in problem["detail"]


async def test_no_upload_is_larger_than_what_can_ever_be_paid_for(
    start_service: Any, origin: Origin
) -> None:
    url = origin.url("none.jpg")
    for quota in ("images_per_minute", "images_in_flight"):
        service = await start_service(ratelimit={**UNLIMITED, quota: 2})
        status, problem, _ = await post(service, url, url, url)
        assert (status, problem["code"]) == (422, "VALIDATION_FAILED")
        assert "3 images are more than the 2 allowed in one request" in problem["detail"]
        await service.stop()


async def test_images_at_a_time_are_those_that_are_not_finished(
    start_service: Any, origin: Origin, hold: Hold
) -> None:
    service = await start_service(ratelimit={**UNLIMITED, "images_in_flight": 3})
    slow, quick = origin.add("slow.jpg", hold.handler), origin.url("none.jpg")
    status, first, headers = await post(service, slow, quick)
    assert (status, headers["RateLimit-Policy"]) == (202, '"in-flight";q=3')
    assert headers["RateLimit"] == '"in-flight";r=1'

    async def one_left() -> bool:
        _, found = await service.get(f"/status/{first['requestId']}")
        return bool(found["processedImages"] == 1)

    await wait_until(one_left, "one of two is finished")
    status, problem, headers = await post(service, quick, quick, quick)
    assert (status, problem["code"]) == (429, "QUOTA_EXCEEDED")
    assert "1 images are not finished" in problem["detail"]
    assert int(headers["Retry-After"]) > 0
    assert headers["RateLimit"] == '"in-flight";r=2'
    status, second, _ = await post(service, quick, quick)
    assert status == 202
    hold.release()
    await asyncio.gather(ended(service, first), ended(service, second))
    status, third, _ = await post(service, quick, quick, quick)
    assert status == 202
    await ended(service, third)


async def test_bytes_are_counted_when_they_are_fetched_failures_too(
    start_service: Any, origin: Origin
) -> None:
    picture = len(origin.photo("rocket.jpg"))
    text = origin.add("text.jpg", b"no picture" * 1000)
    limit = picture + 5_000
    service = await start_service(ratelimit={**UNLIMITED, "bytes_per_day": limit})
    status, answer, headers = await post(service, origin.url("rocket.jpg"))
    assert status == 202
    assert headers["RateLimit-Policy"] == f'"bytes";q={limit};w=86400'
    assert headers["RateLimit"] == f'"bytes";r={limit};t=0'
    await ended(service, answer)

    async def left() -> int:
        # What is refused for its form is not asked for bytes; so post, with nothing to fetch.
        _, _, headers = await post(service, origin.url("none.jpg"))
        return int(headers["RateLimit"].split("r=")[1].split(";")[0])

    async def counted() -> bool:
        return 5_000 <= await left() < 6_000  # some comes back by the second

    await wait_until(counted, "the picture's bytes are counted")
    status, answer, _ = await post(service, text)
    assert status == 202, "what is left is asked for, not what will come"
    await ended(service, answer)

    async def used_up() -> tuple[int, dict[str, Any], dict[str, str]] | None:
        refused = await post(service, origin.url("none.jpg"))
        return refused if refused[0] == 429 else None

    _, problem, headers = await wait_until(used_up, "the quota is used up")
    assert problem["code"] == "QUOTA_EXCEEDED"
    assert f"More than {limit} bytes fetched in a day" in problem["detail"]
    # 5,000 bytes are owed, which come back in their share of a day.
    assert 0.9 < int(headers["Retry-After"]) / (86_400 * 5_000 / limit) <= 1

    await all_ended(service)


async def test_a_replica_that_leaves_has_counted_what_it_fetched(
    start_service: Any, origin: Origin, servers: EmbeddedServers
) -> None:
    limits = {**UNLIMITED, "bytes_per_day": 1_000_000}
    service = await start_service(ratelimit=limits)
    _, answer, _ = await post(service, origin.url("rocket.jpg"))
    await ended(service, answer)
    await service.stop()
    with redis.Redis(port=servers.endpoints.redis_port) as client:
        assert client.pttl("{imgsvc}:limit:bytes:127.0.0.1") > 60_000


async def test_each_tenant_has_quotas_of_its_own(start_service: Any, origin: Origin) -> None:
    service = await start_service(
        auth={"mode": "keys"},
        ratelimit={**UNLIMITED, "uploads_per_minute": 3, "images_per_minute": 2},
    )
    ledger = Ledger(service.settings.mongo)
    keys = []
    for tenant in ("acme", "acme", "globex"):
        made = credentials.new()
        await ledger.api_keys.insert(made.id, made.digest, tenant, set(Scope), None)
        keys.append(str(made))
    ledger.close()
    url = origin.url("none.jpg")
    status, first, _ = await post(service, url, url, key=keys[0])
    assert status == 202
    status, problem, headers = await post(service, url, key=keys[1])
    assert (status, problem["code"]) == (429, "QUOTA_EXCEEDED"), "another key, the same tenant"
    assert headers["RateLimit-Policy"] == '"upload";q=3;w=60, "images";q=2;w=60'
    assert headers["RateLimit"].startswith('"upload";r=1;t=40, "images";r=0;')
    status, other, _ = await post(service, url, url, key=keys[2])
    assert status == 202
    # Calls are bounded too, and who is not let in does not use up what others may.
    for _ in range(5):
        assert (await post(service, url, key="isk_nonsense"))[0] == 401
    assert (await post(service, url, key=keys[0]))[1]["code"] == "QUOTA_EXCEEDED"
    assert (await post(service, url, key=keys[0]))[1]["code"] == "RATE_LIMITED"

    for key, answer in ((keys[0], first), (keys[2], other)):
        service.session.headers["Authorization"] = f"Bearer {key}"
        await ended(service, answer)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("203.0.113.1", "203.0.113.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("203.0.113.1", "::ffff:203.0.113.1", True),
        ("::ffff:203.0.113.1", "::ffff:203.0.113.2", False),
        ("fe80::1%one", "fe80::2%two", True),
        ("no address", "another", False),
    ],
)
async def test_without_tenants_addresses_have_quotas(
    start_service: Any, origin: Origin, one: str, other: str, same: bool
) -> None:
    service = await start_service(
        ratelimit={**UNLIMITED, "images_per_minute": 1},
        http={"trusted_proxies": ["127.0.0.1/32"]},
    )
    statuses = []
    for address in (one, other):
        service.session.headers["X-Forwarded-For"] = address
        status, answer, _ = await post(service, origin.url("none.jpg"))
        statuses.append(status)
        if status == 202:
            await ended(service, answer)
    assert statuses == [202, 429 if same else 202]


async def test_zero_is_without_limit_and_says_nothing(start_service: Any, origin: Origin) -> None:
    service = await start_service(ratelimit=UNLIMITED)
    for _ in range(5):
        status, answer, headers = await post(service, origin.url("none.jpg"))
        assert status == 202
        assert not [name for name in headers if name.startswith("RateLimit")]
        await ended(service, answer)


async def test_without_redis_quotas_let_in_and_it_is_said(
    start_service: Any, servers: EmbeddedServers, origin: Origin
) -> None:
    limits = {"images_per_minute": 1, "bytes_per_day": 1}
    service = await start_service(ratelimit={**UNLIMITED, **limits})
    servers.redis.kill()
    try:
        answers = [(await post(service, origin.url("none.jpg"))) for _ in range(2)]
        assert [status for status, *_ in answers] == [202, 202]
        async with service.session.get(f"{service.url}/metrics") as response:
            assert "imgsvc_ratelimit_failed_open_total 4.0" in await response.text()
    finally:
        await servers.redis.start()
    await asyncio.gather(*(ended(service, answer) for _, answer, _ in answers))
