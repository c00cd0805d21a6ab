"""Who may come in with a key, what they may do, and whose requests they see."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from imgsvc.auth import credentials
from imgsvc.auth.authenticator import Authenticator
from imgsvc.domain.model import Scope
from imgsvc.embedded.servers import EmbeddedServers
from imgsvc.http import keys, middleware
from imgsvc.http.route import Route
from imgsvc.http.routes import ROUTES
from imgsvc.ledger import Ledger
from tests.support import Origin, Service, wait_until

ALL = frozenset(Scope)
UNKNOWN = "00000000-0000-4000-8000-000000000000"
MOMENTARY = {"date", "x-request-id"}
MakeKey = Callable[..., Awaitable[str]]


@pytest.fixture
async def guarded(start_service: Any) -> Service:
    """A service that asks for keys."""
    made: Service = await start_service(auth={"mode": "keys"})
    return made


@pytest.fixture
async def keys_of(guarded: Service) -> AsyncIterator[Ledger]:
    """The service's ledger, in the hands of the test."""
    ledger = Ledger(guarded.settings.mongo)
    yield ledger
    ledger.close()


@pytest.fixture
def make_key(keys_of: Ledger) -> MakeKey:
    """Makes keys as `imgsvc keys create` does."""

    async def make(
        tenant: str, scopes: frozenset[Scope] = ALL, expires_at: datetime | None = None
    ) -> str:
        made = credentials.new()
        await keys_of.api_keys.insert(made.id, made.digest, tenant, scopes, expires_at)
        return str(made)

    return make


async def call(
    service: Service, method: str, path: str, key: str | None = None, **request: Any
) -> tuple[int, dict[str, str], str]:
    """Status, headers but for those of the moment, and body."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    headers |= request.pop("headers", {})
    url = f"{service.url}{path}"
    async with service.session.request(method, url, headers=headers, **request) as response:
        told = {k: v for k, v in response.headers.items() if k.lower() not in MOMENTARY}
        return response.status, told, await response.text()


async def upload(service: Service, key: str, *urls: str) -> str:
    service.session.headers["Authorization"] = f"Bearer {key}"
    try:
        return await service.upload([list(urls)])
    finally:
        del service.session.headers["Authorization"]


def path_of(route: Route, request_id: str) -> str:
    return re.sub(r"{(\w+)}", lambda name: request_id if name[1] == "id" else "0", route.path)


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


CLOSED = [route for route in ROUTES if isinstance(route.scope, Scope)]
OF_ONE_REQUEST = [route for route in CLOSED if "{id}" in route.path]


# The table of routes, walked.


def test_only_these_calls_are_open() -> None:
    assert {named(route) for route in ROUTES if route.scope == "open"} == {
        "GET /healthz",
        "GET /readyz",
    }
    assert {route.path for route in ROUTES if route.scope == Scope.ADMIN} == {"/metrics"}
    assert len(OF_ONE_REQUEST) >= 5


async def test_every_other_call_is_refused_without_a_key(guarded: Service) -> None:
    for route in CLOSED:
        status, headers, body = await call(guarded, route.method, path_of(route, UNKNOWN))
        assert (status, headers["Content-Type"]) == (401, "application/problem+json"), named(route)
        assert '"code":"UNAUTHENTICATED"' in body
        assert headers["WWW-Authenticate"] == 'Bearer realm="imgsvc"'


async def test_every_other_call_is_refused_with_a_key_for_other_things(
    guarded: Service, make_key: MakeKey
) -> None:
    for route in CLOSED:
        key = await make_key("acme", ALL - {route.scope})
        status, headers, body = await call(guarded, route.method, path_of(route, UNKNOWN), key)
        assert (status, '"code":"FORBIDDEN"' in body) == (403, True), named(route)
        assert f"scope {route.scope}" in body
        assert f'error="insufficient_scope", scope="{route.scope}"' in headers["WWW-Authenticate"]


async def test_every_call_is_answered_with_a_key_for_it_alone(
    guarded: Service, make_key: MakeKey
) -> None:
    for route in CLOSED:
        key = await make_key("acme", frozenset({Scope(route.scope)}))
        status, _, _ = await call(guarded, route.method, path_of(route, UNKNOWN), key)
        assert status not in {401, 403}, named(route)


async def test_another_tenants_request_is_like_one_that_never_was(
    guarded: Service, make_key: MakeKey, origin: Origin
) -> None:
    owner, other = await make_key("acme"), await make_key("globex")
    request_id = await upload(guarded, owner, origin.url("rocket.jpg"))

    async def ended() -> bool:
        _, _, body = await call(guarded, "GET", f"/status/{request_id}", owner)
        return "COMPLETED" in body

    await wait_until(ended, "the request is done")
    before = await call(guarded, "GET", f"/status/{request_id}", owner)
    assert before[0] == 200
    for route in OF_ONE_REQUEST:
        theirs = await call(guarded, route.method, path_of(route, request_id), other, json={})
        nobodys = await call(guarded, route.method, path_of(route, UNKNOWN), other, json={})
        assert theirs == nobodys, named(route)
        assert (theirs[0], '"code":"NOT_FOUND"' in theirs[2]) == (404, True), named(route)
    assert await call(guarded, "GET", f"/status/{request_id}", owner) == before
    assert request_id not in (await call(guarded, "GET", "/api/requests", other))[2]
    assert request_id in (await call(guarded, "GET", "/api/requests", owner))[2]


async def test_an_address_that_is_none_is_told_to_be_none(guarded: Service) -> None:
    assert (await call(guarded, "GET", "/nowhere"))[0] == 404
    status, headers, _ = await call(guarded, "DELETE", "/api/upload")
    assert (status, headers["Allow"]) == (405, "POST")


async def test_documents_are_open_unless_that_is_said(
    start_service: Any, guarded: Service, make_key: MakeKey
) -> None:
    paths = [route.path for route in ROUTES if route.scope == "docs"]
    assert {"/docs", "/openapi.json"} <= set(paths)
    # On the same database: one key is good for both.
    protected = await start_service(auth={"mode": "keys", "protect_docs": True})
    reader, admin = await make_key("acme", ALL - {Scope.ADMIN}), await make_key("acme")
    for path in paths:
        assert (await call(guarded, "GET", path))[0] == 200
        assert (await call(protected, "GET", path))[0] == 401
        assert (await call(protected, "GET", path, reader))[0] == 403
        assert (await call(protected, "GET", path, admin))[0] == 200


async def test_what_is_served_beside_the_table_is_the_operators() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application(middlewares=[middleware.refuse, middleware.authenticate])
    app[keys.AUTHENTICATOR] = Authenticator(None, None)
    app[keys.SCOPES] = {}
    app.router.add_get("/forgotten", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/forgotten"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            assert response.status == 401
    finally:
        await runner.cleanup()


# Keys.


@pytest.mark.parametrize(
    "shown",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer isk_",
        "Bearer isk_0123456789abcdef_",
        "Bearer eyJhbGciOiJub25lIn0.e30.",
        "Basic aXNrX3g6eA==",
        "Bearer {key} x",
        "Bearer  {key}",
        "Bearer {key}, Bearer {key}",
        "Bearer {other_secret}",
        "Bearer {other_id}",
        "{key}",
        "Bearer \udcff\udcfe",
        "Bearer " + "a" * 7000,
    ],
)
async def test_what_is_not_a_key_of_ours_does_not_let_in(
    guarded: Service, make_key: MakeKey, shown: str
) -> None:
    key, another = await make_key("acme"), await make_key("acme")
    mine, theirs = credentials.parse(key), credentials.parse(another)
    assert mine
    assert theirs
    shown = shown.format(
        key=key,
        other_secret=credentials.Credential(mine.id, theirs.secret),
        other_id=credentials.Credential("0" * 16, mine.secret),
    )
    assert (await call(guarded, "GET", "/api/requests", key))[0] == 200
    # Past the client library, which would not send some of these.
    reader, writer = await asyncio.open_connection("127.0.0.1", guarded.settings.http.port)
    head = f"GET /api/requests HTTP/1.1\r\nHost: x\r\nAuthorization: {shown}\r\n\r\n"
    writer.write(head.encode("utf-8", "surrogateescape"))
    answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"WWW-Authenticate: Bearer" in answer


async def test_two_authorizations_are_none(guarded: Service, make_key: MakeKey) -> None:
    key = await make_key("acme")
    both = [("Authorization", f"Bearer {key}"), ("Authorization", "Bearer other")]
    async with guarded.session.get(f"{guarded.url}/api/requests", headers=both) as response:
        assert response.status in {400, 401}


async def test_the_scheme_is_not_about_capitals(guarded: Service, make_key: MakeKey) -> None:
    headers = {"Authorization": f"bEARER {await make_key('acme')}"}
    assert (await call(guarded, "GET", "/api/requests", headers=headers))[0] == 200


async def test_several_keys_of_a_tenant_live_while_one_replaces_the_other(
    guarded: Service, keys_of: Ledger, make_key: MakeKey, origin: Origin
) -> None:
    old, new = await make_key("acme"), await make_key("acme")
    request_id = await upload(guarded, old, origin.url("none.jpg"))
    for key in (old, new):
        assert (await call(guarded, "GET", f"/status/{request_id}", key))[0] == 200
    parsed = credentials.parse(old)
    assert parsed
    assert await keys_of.api_keys.revoke(parsed.id)

    async def refused() -> bool:
        status, _, body = await call(guarded, "GET", f"/status/{request_id}", old)
        return status == 401 and "The key was revoked." in body

    await wait_until(refused, "the revoked key lets in no more", within_s=7)
    assert (await call(guarded, "GET", f"/status/{request_id}", new))[0] == 200

    async def ended() -> bool:
        return "FAILED" in (await call(guarded, "GET", f"/status/{request_id}", new))[2]

    await wait_until(ended, "the request is done")


async def test_a_key_expires_to_the_second(guarded: Service, make_key: MakeKey) -> None:
    key = await make_key("acme", expires_at=datetime.now(UTC) + timedelta(seconds=1))
    assert (await call(guarded, "GET", "/api/requests", key))[0] == 200

    async def refused() -> bool:
        status, _, body = await call(guarded, "GET", "/api/requests", key)
        return status == 401 and "The key has expired." in body

    # Sooner than a caller is forgotten.
    await wait_until(refused, "the key has expired", within_s=2.5)


async def test_the_last_use_of_a_key_is_noted_to_the_minute(
    guarded: Service, keys_of: Ledger, make_key: MakeKey
) -> None:
    credential = credentials.parse(await make_key("acme"))
    assert credential

    async def used() -> datetime | None:
        found = await keys_of.api_keys.find(credential.id)
        assert found
        return found.last_used_at

    assert await used() is None
    assert (await call(guarded, "GET", "/api/requests", str(credential)))[0] == 200
    first = await wait_until(used, "the use is noted")
    assert abs(datetime.now(UTC) - first) < timedelta(seconds=10)
    await keys_of.api_keys.note_use(credential.id)
    assert await used() == first
    # As if a minute had passed.
    await keys_of.store.api_keys.update_one(
        {"_id": credential.id}, {"$set": {"lastUsedAt": first - timedelta(seconds=61)}}
    )
    await keys_of.api_keys.note_use(credential.id)
    assert await used() >= first


async def test_secrets_are_in_no_log_and_not_in_the_ledger(
    guarded: Service, keys_of: Ledger, make_key: MakeKey, capfd: pytest.CaptureFixture[str]
) -> None:
    credential = credentials.parse(await make_key("acme"))
    assert credential
    await call(guarded, "GET", "/api/requests", str(credential))
    wrong = credentials.Credential(credential.id, "w" * 43)
    await call(guarded, "GET", "/api/requests", str(wrong))
    logged = "".join(capfd.readouterr())
    assert "http.answered" in logged
    assert credential.id in logged  # which key it was
    assert credential.secret not in logged
    assert wrong.secret not in logged
    stored = str(await keys_of.store.api_keys.find_one({"_id": credential.id}))
    assert credential.secret not in stored


async def test_without_mongo_only_callers_of_a_moment_ago_are_known(
    start_service: Any, servers: EmbeddedServers
) -> None:
    service = await start_service(auth={"mode": "keys"}, mongo={"timeout_ms": 300})
    ledger = Ledger(service.settings.mongo)
    shown = []
    for _ in range(2):
        made = credentials.new()
        await ledger.api_keys.insert(made.id, made.digest, "acme", {Scope.ADMIN}, None)
        shown.append(str(made))
    ledger.close()
    assert (await call(service, "GET", "/metrics", shown[0]))[0] == 200
    servers.mongo.kill()
    try:
        assert (await call(service, "GET", "/metrics", shown[0]))[0] == 200
        status, headers, body = await call(service, "GET", "/metrics", shown[1])
        assert (status, '"code":"UNAVAILABLE"' in body) == (503, True)
        assert int(headers["Retry-After"]) > 0
        assert (await call(service, "GET", "/metrics"))[0] == 401

        async def forgotten() -> bool:
            return (await call(service, "GET", "/metrics", shown[0]))[0] == 503

        await wait_until(forgotten, "a revocation could not be missed for long", within_s=7)
    finally:
        await servers.mongo.start()
    await wait_until(service.is_ready, "the service is ready again")
    assert (await call(service, "GET", "/metrics", shown[1]))[0] == 200


async def test_keys_are_not_asked_for_unless_that_is_said(service: Service) -> None:
    for path in ("/api/requests", "/metrics", "/docs"):
        assert (await call(service, "GET", path, "isk_nonsense"))[0] == 200


# What the document says of it, and other origins.


async def test_the_document_says_which_calls_need_which_scope(guarded: Service) -> None:
    _, document = await guarded.get("/openapi.json")
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for route in ROUTES:
        operation = document["paths"][route.path][route.method.lower()]
        if route in CLOSED:
            assert operation["security"] == [{"bearer": [route.scope]}, {}]
            assert {"401", "403"} <= set(operation["responses"])
        else:
            assert "security" not in operation


async def test_pages_of_other_origins_are_never_let_in_and_every_answer_is_hardened(
    guarded: Service, make_key: MakeKey
) -> None:
    key = await make_key("acme")
    asks = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for route in ROUTES:
        path = path_of(route, UNKNOWN)
        for method in (route.method, "OPTIONS"):
            for shown in (None, key):
                status, headers, _ = await call(guarded, method, path, shown, headers=asks)
                assert not [name for name in headers if name.startswith("Access-Control")]
                assert headers["X-Content-Type-Options"] == "nosniff"
                assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
                assert headers["Referrer-Policy"] == "no-referrer"
                assert method != "OPTIONS" or status == 405
