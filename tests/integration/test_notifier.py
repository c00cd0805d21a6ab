"""The Notifier: whatever a receiver does, it is told within the rules and nobody else waits."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import itertools
import os
import signal
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis.asyncio
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standardwebhooks.webhooks import Webhook
from structlog.testing import capture_logs

from imgsvc.runtime.settings import Settings
from imgsvc.webhooks.signature import new_secret
from tests.conftest import SECRET, free_port
from tests.name_server import NameServer
from tests.support import Handler, Origin, Received, Receiver, Service, wait_until

GIGABYTE = 1_000_000_000


@contextlib.asynccontextmanager
async def raw_receiver(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[str]:
    """A receiver below HTTP; gives its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await talk(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    scheme = "https" if tls else "http"
    yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    server.close()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer so slowly that not even the status gets there, until the other side goes."""
    writer.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    while not reader.at_eof():
        writer.write(b"x")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await reader.read(100_000)


def self_signed(folder: Path) -> ssl.SSLContext:
    """The TLS of a server whose certificate nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    file.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


async def attempts(service: Service, request_id: str) -> list[dict[str, Any]]:
    _, found = await service.get(f"/api/requests/{request_id}/deliveries")
    listed: list[dict[str, Any]] = found["attempts"]
    return listed


async def announced(service: Service, url: str) -> tuple[dict[str, Any], list[Any]]:
    """The webhook of a request that failed, in the end, and its attempts as (status, error)."""
    request_id = await service.upload([[gone(service)]], webhookUrl=url)
    status = await service.announced(request_id)
    listed = await attempts(service, request_id)
    return status["webhook"], [(a["status"], a["error"]) for a in listed]


def gone(service: Service) -> str:
    """The address of an image that is not there, which is told at once: the end comes soon."""
    return f"{service.url}/gone.jpg"


def gaps(received: list[Received]) -> list[float]:
    """Seconds between the attempts."""
    times = [one.at for one in received]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def busy(status: int, retry_after: str) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Retry-After": retry_after})

    return answer


class Held:
    """A receiver's answers that do not come until they are let go."""

    def __init__(self) -> None:
        self._let_go = asyncio.Event()
        self.here = 0
        self.most = 0

    def let_go(self) -> None:
        self._let_go.set()

    async def handler(self, _: web.Request) -> web.Response:
        self.here += 1
        self.most = max(self.most, self.here)
        try:
            await self._let_go.wait()
        finally:
            self.here -= 1
        return web.Response()


# What is an answer, and what is none.


async def test_any_2xx_is_delivered(service: Service, receiver: Receiver) -> None:
    for status in (200, 201, 204, 299):
        receiver.script = [status]
        webhook, listed = await announced(service, receiver.url)
        assert webhook == {"status": "DELIVERED", "attempts": 1}
        assert listed == [(status, None)]


async def test_a_receiver_that_fails_once_is_told_again(
    service: Service, receiver: Receiver
) -> None:
    receiver.script = [500]
    webhook, listed = await announced(service, receiver.url)
    assert webhook == {"status": "DELIVERED", "attempts": 2}
    assert listed == [(500, "status 500"), (200, None)]


async def test_after_five_failures_it_is_given_up_with_one_line_and_a_count(
    service: Service, receiver: Receiver
) -> None:
    receiver.script = [500] * 9
    with capture_logs() as lines:
        webhook, listed = await announced(service, receiver.url)

        async def told() -> bool:
            return any(line["event"] == "webhook.failed" for line in lines)

        await wait_until(told, "the log says so")
    assert webhook == {"status": "FAILED", "attempts": 5}
    assert listed == [(500, "status 500")] * 5
    planned = [0.05, 0.1, 0.2, 0.4]
    for gap, plan in zip(gaps(receiver.received), planned, strict=True):
        assert gap >= plan * 0.8
    assert len({one.headers["webhook-id"] for one in receiver.received}) == 1
    for one in receiver.received:
        Webhook(SECRET).verify(one.body, one.headers)

    (line,) = [line for line in lines if line["event"] == "webhook.failed"]
    assert (line["post"], line["status"], line["error"]) == (5, 500, "status 500")
    assert sum(line["event"] == "webhook.retried" for line in lines) == 4
    async with service.session.get(f"{service.url}/metrics") as response:
        metrics = await response.text()
    assert 'imgsvc_webhooks_total{status="FAILED"} 1.0' in metrics
    assert 'imgsvc_webhook_attempts_total{outcome="retried"} 4.0' in metrics


async def test_410_stops_at_once(service: Service, receiver: Receiver) -> None:
    receiver.script = [410]
    webhook, listed = await announced(service, receiver.url)
    assert webhook == {"status": "FAILED", "attempts": 1}
    assert listed == [(410, "status 410")]


async def test_a_redirect_is_a_failure_and_is_not_followed(
    start_service: Any, receiver: Receiver, origin: Origin
) -> None:
    service = await start_service(webhook={"attempts": 2})

    async def elsewhere(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": origin.url("hook")})

    receiver.script = [elsewhere, elsewhere]
    webhook, listed = await announced(service, receiver.url)
    assert webhook == {"status": "FAILED", "attempts": 2}
    assert listed == [(302, "status 302")] * 2
    assert origin.asked == []


async def test_a_connection_that_is_reset_is_a_failure(
    start_service: Any, receiver: Receiver
) -> None:
    service = await start_service(webhook={"attempts": 2})

    async def reset(request: web.Request) -> web.Response:
        assert request.transport
        request.transport.abort()
        return web.Response()

    receiver.script = [reset, reset]
    webhook, listed = await announced(service, receiver.url)
    assert webhook == {"status": "FAILED", "attempts": 2}
    assert listed == [(None, "CONNECT_FAILED")] * 2


async def test_nobody_listening_is_a_failure(start_service: Any) -> None:
    service = await start_service(webhook={"attempts": 1})
    _, listed = await announced(service, f"http://127.0.0.1:{free_port()}/hook")
    assert listed == [(None, "CONNECT_FAILED")]


async def test_a_receiver_that_hangs_or_drips_is_waited_for_only_so_long(
    start_service: Any, receiver: Receiver
) -> None:
    service = await start_service(webhook={"attempts": 1, "timeout_s": 0.3})
    held = Held()
    receiver.script = [held.handler]
    async with raw_receiver(drip) as dripping:
        for url in (receiver.url, dripping):
            webhook, listed = await announced(service, url)
            assert webhook["status"] == "FAILED"
            assert listed == [(None, "FETCH_TIMEOUT")]
    held.let_go()


async def test_a_certificate_that_nobody_vouches_for_is_a_failure(
    start_service: Any, tmp_path: Path
) -> None:
    service = await start_service(webhook={"attempts": 1})
    heard: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))

    async with raw_receiver(talk, self_signed(tmp_path)) as url:
        _, listed = await announced(service, url)
    assert listed == [(None, "CONNECT_FAILED")]
    assert b"".join(heard) == b""


async def test_of_a_gigabyte_of_an_answer_little_is_read_and_it_is_delivered(
    service: Service, receiver: Receiver
) -> None:
    written = 0
    ended = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse(headers={"Content-Length": str(GIGABYTE)})
        await response.prepare(request)
        try:
            while written < GIGABYTE:
                await response.write(b"x" * 65536)
                written += 65536
        finally:
            ended.set()
        return response

    receiver.script = [endless]
    _, listed = await announced(service, receiver.url)
    assert listed == [(200, None)]
    await asyncio.wait_for(ended.wait(), 10)
    assert written < GIGABYTE / 20, "what the sockets' buffers hold"


async def test_after_a_status_the_rest_of_the_answer_does_not_matter(
    start_service: Any, receiver: Receiver
) -> None:
    service = await start_service(webhook={"timeout_s": 0.3})
    never = asyncio.Event()

    async def silent_body(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "10"})
        await response.prepare(request)
        await never.wait()
        return response

    receiver.script = [silent_body]
    webhook, listed = await announced(service, receiver.url)
    never.set()
    assert webhook == {"status": "DELIVERED", "attempts": 1}
    assert listed == [(200, None)]


# When.


async def test_a_schedule_of_ones_own_is_kept(start_service: Any, receiver: Receiver) -> None:
    service = await start_service(webhook={"schedule": [0.4, 0.1]})
    receiver.script = [500] * 9
    webhook, _ = await announced(service, receiver.url)
    assert webhook == {"status": "FAILED", "attempts": 3}
    first, second = gaps(receiver.received)
    assert first >= 0.32
    assert 0.08 <= second < first


async def test_a_busy_receiver_is_given_the_time_it_asks_for(service: Service) -> None:
    async def check(status: int) -> None:
        async with Receiver() as receiver:
            receiver.script = [busy(status, "0"), 500, busy(status, "1")]
            webhook, _ = await announced(service, receiver.url)
            assert webhook == {"status": "DELIVERED", "attempts": 4}
            sooner, _, later = gaps(receiver.received)  # planned are 50, 100 and 200 ms
            assert sooner >= 0.05, "it cannot hurry us"
            assert later >= 1.0, f"{status} was not heard"

    await asyncio.gather(*map(check, (429, 502, 503, 504)))


async def test_it_cannot_ask_for_more_than_ten_times_the_plan_nor_with_another_status(
    start_service: Any, receiver: Receiver
) -> None:
    service = await start_service(webhook={"schedule": [0.05, 0.06], "jitter": 0})
    receiver.script = [busy(429, "3600"), busy(500, "3600"), busy(200, "3600")]
    with capture_logs() as lines:
        webhook, _ = await announced(service, receiver.url)
    assert webhook == {"status": "DELIVERED", "attempts": 3}
    waits = [line["wait_s"] for line in lines if line["event"] == "webhook.retried"]
    assert waits == [0.5, 0.06]
    assert gaps(receiver.received)[0] >= 0.5


@pytest.mark.parametrize("moment", ["during an attempt", "between two"])
async def test_redis_losing_everything_makes_nothing_come_early(
    start_service: Any, receiver: Receiver, moment: str
) -> None:
    """The dealer goes through the ledger once a second: it would deal again what it finds due."""
    service = await start_service(webhook={"schedule": [1.5], "jitter": 0, "timeout_s": 1.5})
    held = Held()
    receiver.script = [held.handler if moment == "during an attempt" else 500]
    request_id = await service.upload([[gone(service)]], webhookUrl=receiver.url)

    async def there() -> bool:
        if moment == "during an attempt":
            return held.here == 1
        _, found = await service.get(f"/api/requests/{request_id}/deliveries")
        return bool(found["attempts"] and found["nextAttemptAt"])

    await wait_until(there, f"it is {moment}")
    async with redis.asyncio.Redis(port=service.settings.redis.port) as client:
        await client.flushall()
    webhook = (await service.announced(request_id))["webhook"]
    held.let_go()
    assert webhook == {"status": "DELIVERED", "attempts": 2}
    (gap,) = gaps(receiver.received)
    assert gap >= (3.0 if moment == "during an attempt" else 1.5)


async def test_several_replicas_never_make_one_attempt_twice(
    start_service: Any, receiver: Receiver
) -> None:
    service = await start_service()
    for _ in range(2):
        await start_service()
    failed: Counter[str] = Counter()

    async def twice_no(request: web.Request) -> web.Response:
        failed[request.headers["webhook-id"]] += 1
        return web.Response(status=500 if failed[request.headers["webhook-id"]] < 3 else 200)

    receiver.script = [twice_no] * 1000
    ids = [await service.upload([[gone(service)]], webhookUrl=receiver.url) for _ in range(20)]
    for request_id in ids:
        status = await service.announced(request_id)
        assert status["webhook"] == {"status": "DELIVERED", "attempts": 3}
    assert failed == {f"msg_{request_id}": 3 for request_id in ids}


@pytest.mark.parametrize(("limit", "posts", "end"), [(5, 2, "DELIVERED"), (1, 1, "FAILED")])
async def test_killed_between_post_and_record_the_attempt_counts(  # noqa: PLR0917 - pytest fills them
    make_settings: Callable[..., Settings],
    start_service: Any,
    receiver: Receiver,
    limit: int,
    posts: int,
    end: str,
) -> None:
    changed = {
        "webhook": {"attempts": limit, "timeout_s": 0.5},
        "redis": {"heartbeat_s": 1, "reconcile_s": 1},
    }
    request_id = await killed_after_its_post(make_settings(**changed), receiver.url)
    assert len(receiver.received) == 1
    survivor = await start_service(**changed)
    status = await survivor.announced(request_id)
    assert status["webhook"] == {"status": end, "attempts": posts}
    assert len(receiver.received) == posts
    assert {one.headers["webhook-id"] for one in receiver.received} == {f"msg_{request_id}"}
    listed = [(a["status"], a["error"]) for a in await attempts(survivor, request_id)]
    assert listed == [(None, "UNFINISHED"), (200, None)][:posts]


async def killed_after_its_post(settings: Settings, hook: str) -> str:
    """Have a replica die as by kill -9 when it has posted a webhook; the request's id."""
    url = f"http://127.0.0.1:{settings.http.port}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "imgsvc", "serve"),
        env={**as_environment(settings), "IMGSVC_DEV__FAILPOINT": "webhook.post:after"},
        stdout=asyncio.subprocess.DEVNULL,
    )
    async with aiohttp.ClientSession() as session:

        async def ready() -> bool:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"{url}/readyz") as response:
                    return response.status == 200
            return False

        await wait_until(ready, "the victim is ready")
        product = {
            "serialNumber": "1",
            "productName": "A",
            "inputUrls": [f"{url}/gone.jpg"],
        }
        body = {"products": [product], "webhookUrl": hook}
        async with session.post(f"{url}/api/upload", json=body) as response:
            answer = await response.json()
    assert await asyncio.wait_for(process.wait(), 20) == -signal.SIGKILL
    return str(answer["requestId"])


def as_environment(settings: Settings) -> dict[str, str]:
    """What has ``imgsvc serve`` run with these settings."""
    return {
        **os.environ,
        "PORT": str(settings.http.port),
        "REDIS_PORT": str(settings.redis.port),
        "MONGO_URI": settings.mongo.uri.get_secret_value(),
        "STORAGE_EMULATOR_HOST": str(settings.gcs.emulator_host),
        "GCP_BUCKET_NAME": settings.gcs.bucket,
        "WEBHOOK_RETRY_ATTEMPTS": str(settings.webhook.attempts),
        "IMGSVC_MONGO__DATABASE": settings.mongo.database,
        "IMGSVC_REDIS__HEARTBEAT_S": str(settings.redis.heartbeat_s),
        "IMGSVC_SPOOL__DIR": str(settings.spool.dir),
        "IMGSVC_NET__ALLOW": '["127.0.0.0/8"]',
        "IMGSVC_WEBHOOK__TIMEOUT_S": str(settings.webhook.timeout_s),
        "IMGSVC_WEBHOOK__SECRETS": f'["{SECRET}"]',
    }


# Others.


async def test_a_host_that_hangs_does_not_delay_the_others(
    start_service: Any, receiver: Receiver
) -> None:
    service = await start_service(
        webhook={"concurrency": 4, "host_concurrency": 2, "timeout_s": 60}
    )
    held = Held()
    async with Receiver() as hanging:
        hanging.script = [held.handler] * 8
        images = [[gone(service)]]
        stuck = [await service.upload(images, webhookUrl=hanging.url) for _ in range(8)]

        async def full() -> bool:
            return held.here == 2

        await wait_until(full, "the places of the host that hangs are taken")
        quick = [await service.upload(images, webhookUrl=receiver.url) for _ in range(8)]
        for request_id in quick:
            status = await service.announced(request_id, within_s=10)
            assert status["webhook"] == {"status": "DELIVERED", "attempts": 1}
        assert (held.here, held.most) == (2, 2)
        for request_id in stuck:
            _, status = await service.get(f"/status/{request_id}")
            assert status["webhook"]["status"] == "PENDING"
        held.let_go()
        for request_id in stuck:
            status = await service.announced(request_id)
            assert status["webhook"] == {"status": "DELIVERED", "attempts": 1}
        assert held.most == 2


async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take a webhook."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
    writer.close()


TENANTS = {"http": {"trusted_proxies": ["127.0.0.1/32"]}}


async def upload_as(client: str, service: Service, url: str) -> str:
    """A request that fails at once, of a client with this address: without keys, a tenant."""
    product = {"serialNumber": "1", "productName": "Shoe", "inputUrls": [gone(service)]}
    status, answer = await service.post(
        "/api/upload",
        json={"products": [product], "webhookUrl": url},
        headers={"X-Forwarded-For": client},
    )
    assert status == 202, answer
    return str(answer["requestId"])


@pytest.mark.parametrize(("attempts", "share"), [(8, 6), (2, 1)])
async def test_a_tenant_whose_receivers_all_hang_delays_no_other_tenant(
    start_service: Any, receiver: Receiver, attempts: int, share: int
) -> None:
    """More hosts than messages in hand, each with an address of its own: one tenant's."""
    service = await start_service(**TENANTS, webhook={"timeout_s": 90, "concurrency": attempts})
    here: set[str] = set()
    released = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here.add(writer.get_extra_info("sockname")[0])
        await released.wait()
        await accept(reader, writer)

    hosts, port = [f"127.0.1.{n}" for n in range(1, 5 * attempts + 1)], free_port()
    async with await asyncio.start_server(hang, hosts, port):
        urls = [f"http://{host}:{port}/hook" for host in hosts]
        stuck = [await upload_as("198.51.100.1", service, url) for url in urls]

        async def has_its_share() -> bool:
            return len(here) >= share

        await wait_until(has_its_share, "the tenant has its share", 60)
        prompt = await upload_as("198.51.100.2", service, receiver.url)
        status = await service.announced(prompt)
        assert status["webhook"] == {"status": "DELIVERED", "attempts": 1}
        assert len(here) == share
        released.set()
        for request_id in stuck:
            status = await service.announced(request_id)
            assert status["webhook"] == {"status": "DELIVERED", "attempts": 1}


async def test_an_address_that_hangs_under_many_names_and_tenants_delays_no_other(
    start_service: Any,
) -> None:
    held = Held()
    async with NameServer() as names, Receiver() as hanging:
        names.answers = lambda _: ["127.0.0.1"]
        service = await start_service(
            **TENANTS,
            net={"nameservers": [names.address]},
            webhook={"timeout_s": 60, "concurrency": 8},
        )
        hanging.script = [held.handler] * 100
        port = hanging.url.rpartition(":")[2]
        stuck = [
            await upload_as(f"198.51.100.{n % 4}", service, f"http://n{n}.example:{port}")
            for n in range(12)
        ]

        async def full() -> bool:
            return held.here == 6

        await wait_until(full, "the places of the address that hangs are taken")
        async with await asyncio.start_server(accept, "127.0.0.2", 0) as other:
            url = f"http://127.0.0.2:{other.sockets[0].getsockname()[1]}/hook"
            prompt = await upload_as("198.51.100.9", service, url)
            status = await service.announced(prompt)
            assert status["webhook"] == {"status": "DELIVERED", "attempts": 1}
        assert held.here == 6
        held.let_go()
        for request_id in stuck:
            status = await service.announced(request_id)
            assert status["webhook"]["status"] == "DELIVERED"
        assert held.most == 6


async def test_a_host_that_is_quick_is_kept_busy_by_a_crowd(
    start_service: Any, receiver: Receiver
) -> None:
    service = await start_service(webhook={"host_concurrency": 1})
    images = [[gone(service)]]
    ids = [await service.upload(images, webhookUrl=receiver.url) for _ in range(30)]
    for request_id in ids:
        status = await service.announced(request_id, within_s=10)
        assert status["webhook"] == {"status": "DELIVERED", "attempts": 1}


# What is sent.


async def test_each_active_secret_signs_so_that_rotation_has_no_gap(
    start_service: Any, receiver: Receiver
) -> None:
    newest = new_secret()
    service = await start_service(webhook={"secrets": [newest, SECRET]})
    await announced(service, receiver.url)
    (received,) = receiver.received
    signatures = received.headers["webhook-signature"].split()
    assert len(signatures) == 2
    for secret, signature in zip((newest, SECRET), signatures, strict=True):
        alone = {**received.headers, "webhook-signature": signature}
        Webhook(secret).verify(received.body, alone)


async def test_a_retry_keeps_its_id_and_what_it_says_happened_but_is_signed_anew(
    start_service: Any, receiver: Receiver
) -> None:
    service = await start_service(webhook={"schedule": [1.2], "jitter": 0})
    receiver.script = [500]
    await announced(service, receiver.url)
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert int(second.headers["webhook-timestamp"]) > int(first.headers["webhook-timestamp"])
    said = [Webhook(SECRET).verify(one.body, one.headers) for one in (first, second)]
    assert said[0]["timestamp"] == said[1]["timestamp"]


async def test_the_body_stays_small_and_says_where_the_rest_is(
    service: Service, receiver: Receiver
) -> None:
    products = [[gone(service)] * 10 for _ in range(20)]
    request_id = await service.upload(products, webhookUrl=receiver.url)
    await service.announced(request_id, within_s=60)
    (received,) = receiver.received
    assert len(received.body) < 2_000
    said = Webhook(SECRET).verify(received.body, received.headers)
    assert said["data"]["totalImages"] == 200
    for path in ("status", "images", "report"):
        async with service.session.get(f"{service.url}{said['links'][path]}") as response:
            assert response.status == 200


async def test_the_guard_is_asked_again_when_a_webhook_is_sent(
    start_service: Any, receiver: Receiver
) -> None:
    """A name passes when it is posted, for who knows what it will resolve to."""
    service = await start_service(net={"allow": ["10.0.0.0/8"]}, webhook={"attempts": 2})
    port = receiver.url.rpartition(":")[2]
    request_id = await service.upload(
        [["http://localhost:9/a.jpg"]], webhookUrl=f"http://localhost:{port}"
    )
    status = await service.announced(request_id)
    assert status["webhook"] == {"status": "FAILED", "attempts": 2}
    listed = [(a["status"], a["error"]) for a in await attempts(service, request_id)]
    assert listed == [(None, "URL_BLOCKED")] * 2
    assert receiver.received == []
