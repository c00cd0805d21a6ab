"""Health, metrics, documentation, headers, rate limits."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import aiohttp
import pytest
from openapi_spec_validator import validate

from imgsvc.embedded.servers import EmbeddedServers
from imgsvc.http import openapi
from imgsvc.http.routes import ROUTES
from tests.support import Origin, Service, wait_until


async def test_the_process_is_healthy_and_ready(service: Service) -> None:
    assert await service.get("/healthz") == (200, {"status": "ok"})
    status, answer = await service.get("/readyz")
    assert (status, answer["status"]) == (200, "ready")
    assert answer["checks"] == {
        "redis": "ok",
        "mongo": "ok",
        "bucket": "ok",
        "process": "ok",
    }


async def test_not_ready_while_redis_evicts(service: Service, servers: EmbeddedServers) -> None:
    import redis

    with redis.Redis(port=servers.endpoints.redis_port) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            status, answer = await service.get("/readyz")
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert (status, answer["status"]) == (503, "not ready")
    assert "noeviction" in answer["checks"]["redis"]


async def test_metrics_count_what_was_done(service: Service, origin: Origin) -> None:
    await service.finished(
        await service.upload([[origin.url("rocket.jpg"), origin.url("none.jpg")]])
    )
    text = ""

    async def counted() -> bool:
        nonlocal text
        async with service.session.get(f"{service.url}/metrics") as response:
            text = await response.text()
        return bool(re.search(r'imgsvc_images_total\{code="",status="COMPLETED"\} 1\.0', text))

    await wait_until(counted, "the image is counted, which is so a moment after it ended")
    assert re.search(r'imgsvc_images_total\{code="FETCH_STATUS",status="FAILED"\} 1\.0', text)
    assert re.search(r'imgsvc_http_request_seconds_count\{.*route="/status/\{id\}".*\}', text)


async def test_metrics_count_how_requests_ended(service: Service, origin: Origin) -> None:
    good, bad = origin.url("rocket.jpg"), origin.url("none.jpg")
    for urls in ([good], [good, bad], [bad], [good]):
        await service.finished(await service.upload([urls]))
    expected = {"COMPLETED": 2, "PARTIAL": 1, "FAILED": 1}

    async def counted() -> bool:
        async with service.session.get(f"{service.url}/metrics") as response:
            text = await response.text()
        found = re.findall(r'imgsvc_requests_total\{status="(\w+)"\} (\d+)', text)
        return {status: int(count) for status, count in found} == expected

    await wait_until(counted, "each end is counted once")


async def test_the_openapi_document_is_valid_and_agrees_with_the_routes(service: Service) -> None:
    status, document = await service.get("/openapi.json")
    assert status == 200
    validate(document)
    documented = {
        (method.upper(), path) for path, calls in document["paths"].items() for method in calls
    }
    assert documented == {(route.method, route.path) for route in ROUTES}


async def test_the_openapi_document_is_not_made_anew_for_each_call(service: Service) -> None:
    """Making it takes the event loop 50 ms, and anybody may ask for it."""
    begun = time.process_time()
    made = openapi.document(ROUTES)
    made_s = time.process_time() - begun
    begun = time.process_time()
    for _ in range(20):
        status, served = await service.get("/openapi.json")
        assert (status, served) == (200, json.loads(json.dumps(made)))
    assert (time.process_time() - begun) / 20 < made_s / 2


async def test_every_answer_has_the_shape_that_the_document_promises(
    service: Service, origin: Origin
) -> None:
    from openapi_schema_validator import OAS31Validator

    request_id = await service.upload([[origin.url("rocket.jpg"), origin.url("none.jpg")]])
    await service.finished(request_id)
    _, document = await service.get("/openapi.json")
    checked = 0
    for path, calls in document["paths"].items():
        answers = calls.get("get", {}).get("responses", {})
        schema = answers.get("200", {}).get("content", {}).get("application/json", {}).get("schema")
        if not schema or path == "/openapi.json":
            continue
        status, body = await service.get(path.replace("{id}", request_id))
        assert status == 200, path
        OAS31Validator({**schema, "components": document["components"]}).validate(body)
        checked += 1
    assert checked >= 6


async def test_every_example_of_the_document_is_accepted(service: Service, origin: Origin) -> None:
    request_id = await service.upload([[origin.url("none.jpg")]])
    await service.finished(request_id)
    _, document = await service.get("/openapi.json")
    posted = 0
    for path, calls in document["paths"].items():
        for media, content in (
            calls.get("post", {}).get("requestBody", {}).get("content", {}).items()
        ):
            example = content["example"]
            if media == "multipart/form-data":
                request: dict[str, Any] = {"data": aiohttp.FormData()}
                for name, value in example.items():
                    request["data"].add_field(name, value, filename="a" if name == "file" else None)
            else:
                data = example if isinstance(example, str) else json.dumps(example)
                request = {"data": data, "headers": {"Content-Type": media}}
            # Uploads are tried, for nothing is at these addresses.
            query = {"validate": "true"} if path == "/api/upload" else {}
            status, answer = await service.post(
                path.replace("{id}", request_id), params=query, **request
            )
            assert f"{status}" in calls["post"]["responses"], (path, media, answer)
            assert status in {200, 202}, (path, media, answer)
            assert answer.get("valid", True), (media, answer)
            posted += 1
    assert posted == sum(len(route.body) for route in ROUTES)
    await service.finished(request_id)


async def test_every_answer_of_the_document_has_an_example_of_its_shape(service: Service) -> None:
    from openapi_schema_validator import OAS31Validator

    _, document = await service.get("/openapi.json")
    components = {"components": document["components"]}
    checked = 0
    for path, calls in document["paths"].items():
        for call in calls.values():
            for status, answer in call["responses"].items():
                told = answer["content"].get("application/json")
                if not told or path == "/openapi.json":
                    continue
                OAS31Validator({**told["schema"], **components}).validate(told["example"])
                assert told["example"].keys() == _keys(told["schema"], document), (path, status)
                checked += 1
    assert checked == sum(not isinstance(a, str) for r in ROUTES for a in r.answers.values())
    problem = document["components"]["schemas"]["Problem"]
    OAS31Validator({**problem, **components}).validate(problem["examples"][0])


def _keys(schema: dict[str, Any], document: dict[str, Any]) -> set[str]:
    name = schema["$ref"].rpartition("/")[2]
    return set(document["components"]["schemas"][name]["properties"])


async def test_the_documentation_page_loads_nothing_from_elsewhere(service: Service) -> None:
    for path, kind in (
        ("/docs", "text/html"),
        ("/docs.js", "text/javascript"),
        ("/docs.css", "text/css"),
    ):
        async with service.session.get(f"{service.url}{path}") as response:
            assert (response.status, response.content_type) == (200, kind)
            assert "default-src 'self'" in response.headers["Content-Security-Policy"]
            assert "://" not in await response.text()


async def test_a_given_request_id_goes_through_to_the_answer(service: Service) -> None:
    for given, kept in (("trace-42.a_b", True), ("bad id\tx", False), ("x" * 200, False)):
        async with service.session.get(
            f"{service.url}/healthz", headers={"X-Request-Id": given.replace("\t", " ")}
        ) as response:
            assert (response.headers["X-Request-Id"] == given) == kept
            assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_client_that_calls_too_often_is_slowed_down(start_service: Any) -> None:
    service = await start_service(
        ratelimit={"enabled": True, "reads_per_minute": 3, "uploads_per_minute": 1}
    )
    for left in (2, 1, 0):
        async with service.session.get(f"{service.url}/api/requests") as response:
            assert response.status == 200
            assert response.headers["RateLimit-Policy"] == '"read";q=3;w=60'
            assert response.headers["RateLimit"].startswith(f'"read";r={left};t=')
    async with service.session.get(f"{service.url}/api/requests") as response:
        problem = await response.json()
        assert (response.status, problem["code"]) == (429, "RATE_LIMITED")
        assert 1 <= int(response.headers["Retry-After"]) <= 20
        assert response.headers["RateLimit"].startswith('"read";r=0;')
    # Uploads are counted apart, and operators' calls are not counted.
    status, _ = await service.post("/api/upload", json={})
    assert status == 422
    assert (await service.get("/healthz"))[0] == 200


async def test_clients_behind_a_trusted_proxy_are_told_apart(start_service: Any) -> None:
    limits = {"enabled": True, "reads_per_minute": 1}

    async def statuses(service: Service, *forwarded: str) -> list[int]:
        found = []
        for addresses in forwarded:
            headers = {"X-Forwarded-For": addresses}
            async with service.session.get(
                f"{service.url}/api/requests", headers=headers
            ) as response:
                found.append(response.status)
        return found

    behind = await start_service(ratelimit=limits, http={"trusted_proxies": ["127.0.0.1/32"]})
    assert await statuses(behind, "203.0.113.1", "203.0.113.2", "9.9.9.9, 203.0.113.1") == [
        200,
        200,
        429,
    ]
    in_the_open = await start_service(ratelimit=limits)
    assert await statuses(in_the_open, "203.0.113.8", "203.0.113.9") == [200, 429]


async def test_without_redis_calls_are_let_in_and_it_is_said(
    start_service: Any, servers: EmbeddedServers
) -> None:
    service = await start_service(ratelimit={"enabled": True, "reads_per_minute": 1})
    servers.redis.kill()
    try:
        for _ in range(3):
            assert (await service.get("/api/requests"))[0] == 200
        status, answer = await service.get("/readyz")
        assert (status, answer["checks"]["mongo"]) == (503, "ok")
        async with service.session.get(f"{service.url}/metrics") as response:
            assert "imgsvc_ratelimit_failed_open_total 3.0" in await response.text()
    finally:
        await servers.redis.start()
    await wait_until(service.is_ready, "the service is ready again")


async def test_redis_away_does_not_stop_uploads_and_the_work_is_done_later(
    service: Service, servers: EmbeddedServers, origin: Origin
) -> None:
    servers.redis.kill()
    try:
        request_id = await service.upload([[origin.url("rocket.jpg")]])
        assert (await service.get(f"/status/{request_id}"))[1]["status"] == "PENDING"
    finally:
        await servers.redis.start()
    assert (await service.finished(request_id))["status"] == "COMPLETED"


async def test_mongo_away_refuses_uploads_and_recovers(
    start_service: Any, servers: EmbeddedServers, origin: Origin
) -> None:
    service = await start_service(mongo={"timeout_ms": 300})
    body = {
        "products": [
            {"serialNumber": "1", "productName": "A", "inputUrls": [origin.url("rocket.jpg")]}
        ]
    }
    servers.mongo.kill()
    try:
        async with service.session.post(f"{service.url}/api/upload", json=body) as response:
            assert (response.status, (await response.json())["code"]) == (503, "UNAVAILABLE")
            assert int(response.headers["Retry-After"]) > 0
        assert (await service.get("/healthz"))[0] == 200
    finally:
        await servers.mongo.start()
    await wait_until(service.is_ready, "the service is ready again")
    assert (await service.get("/api/requests"))[1]["requests"] == []
    status, answer = await service.post("/api/upload", json=body)
    assert status == 202
    assert (await service.finished(answer["requestId"]))["status"] == "COMPLETED"


@pytest.mark.parametrize("path", ["/api/upload", "/status/x", "/healthz"])
async def test_no_traceback_reaches_a_client(service: Service, path: str) -> None:
    for method in ("GET", "POST", "PUT", "OPTIONS", "HEAD"):
        async with service.session.request(
            method, f"{service.url}{path}", data=b"\xff"
        ) as response:
            assert response.status != 500
            assert "Traceback" not in await response.text()
