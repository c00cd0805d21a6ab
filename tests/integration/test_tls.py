"""TLS: clients see that no connection could be made, operators which check failed, and whose."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.imaging.identify import sniff
from imgsvc.outbound.client import Outbound
from imgsvc.runtime.settings import Fetch, Net
from tests.name_server import NameServer
from tests.support import Origin

DAY = dt.timedelta(days=1)
NAME = "pictures.example"


class Authority:
    """Signs certificates; a client may be told to believe it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of a test")])
        ca = x509.BasicConstraints(ca=True, path_length=0)
        builder = self._builder(self._name, self._key).add_extension(ca, critical=True)
        self.certificate = builder.sign(self._key, hashes.SHA256())

    def _builder(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, begins: dt.timedelta = -DAY
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + begins + 2 * DAY)
        )

    def server(self, begins: dt.timedelta = -DAY, *names: x509.GeneralName) -> ssl.SSLContext:
        """The TLS of a server with a certificate for these names."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = x509.SubjectAlternativeName(names or [x509.DNSName(NAME)])
        builder = self._builder(x509.Name([]), key, begins)
        signed = builder.add_extension(alternatives, critical=True).sign(self._key, hashes.SHA256())
        pem = serialization.Encoding.PEM
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        file = self._folder / "server.pem"
        file.write_bytes(signed.public_bytes(pem) + key.private_bytes(pem, form, plain))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def believed(self) -> ssl.SSLContext:
        """The TLS of a client that believes nobody else."""
        pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()
        return ssl.create_default_context(cadata=pem)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextlib.asynccontextmanager
async def serving(context: ssl.SSLContext | None) -> AsyncIterator[int]:
    """A server that answers each connection with nothing; gives its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read(100)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def drop(_: bytes) -> None: ...


Make = Callable[[Authority], ssl.SSLContext | None]


@pytest.mark.parametrize(
    ("make", "believed", "check"),
    [
        (lambda by: by.server(), True, None),
        (lambda by: by.server(-9 * DAY), True, "expired"),
        (lambda by: by.server(9 * DAY), True, "not yet valid"),
        (lambda by: by.server(-DAY, x509.DNSName("shop.example")), True, "wrong name"),
        (
            lambda by: by.server(-DAY, x509.IPAddress(ipaddress.ip_address("127.0.0.1"))),
            True,
            "wrong name",
        ),
        (lambda by: by.server(), False, "unknown authority"),
        (lambda _: None, True, "protocol"),
    ],
    ids=["good", "expired", "not yet", "name", "address", "authority", "no tls"],
)
async def test_the_check_that_failed_is_told_to_operators_alone(
    authority: Authority, make: Make, believed: bool, check: str | None
) -> None:
    async with NameServer() as names, serving(make(authority)) as port:
        names.answers = lambda _: ["127.0.0.1"]
        net = Net.model_validate({"allow": ["127.0.0.0/8"], "nameservers": [names.address]})
        outbound = Outbound(net, Fetch(), sniff)
        if believed:
            outbound._session.connector._ssl = authority.believed()  # type: ignore[union-attr]
        url = f"https://{NAME}:{port}/a.jpg?token=LEAKED"
        try:
            if check is None:
                assert await outbound.download(url, drop)
                return
            for ask in (
                lambda: outbound.download(url, drop),
                lambda: outbound.post(url, b"", {}, 5),
            ):
                with pytest.raises(ServiceError) as caught:
                    await ask()
                error = caught.value
                assert error.code is ErrorCode.CONNECT_FAILED
                assert error.detail == ErrorCode.CONNECT_FAILED.message
                assert error.cause
                assert error.cause.startswith(f"TLS: {check} ({NAME}:{port}): ")
                assert "LEAKED" not in error.cause
        finally:
            await outbound.close()


async def test_it_is_in_the_log_lines_of_images_and_webhooks(
    start_service: Any, origin: Origin, authority: Authority
) -> None:
    with capture_logs() as lines:
        async with serving(authority.server()) as port:
            service = await start_service(webhook={"attempts": 2}, fetch={"failures": 1})
            broken = f"https://127.0.0.1:{port}/a.jpg?token=LEAKED"
            hook = f"https://127.0.0.1:{port}/hook?token=LEAKED"
            request_id = await service.upload([[broken, origin.url("rocket.jpg")]], webhookUrl=hook)
            await service.announced(request_id, 60)
            status, told = await service.post("/api/webhooks/test", json={"url": hook})
            assert (status, told["error"]) == (200, "CONNECT_FAILED")
            [image, _] = await service.images(request_id)
            _, deliveries = await service.get(f"/api/requests/{request_id}/deliveries")
            await service.stop()
    cause = f"TLS: unknown authority (127.0.0.1:{port}): "
    events = {line["event"] for line in lines if line.get("cause", "").startswith(cause)}
    assert events >= {
        "image.put_off",
        "image.failed",
        "origin.rests",
        "webhook.retried",
        "webhook.failed",
        "webhook.test_failed",
    }
    assert image["error"]["code"] == "CONNECT_FAILED"
    assert {each["error"] for each in deliveries["attempts"]} == {"CONNECT_FAILED"}
    assert "TLS" not in f"{image} {deliveries} {told}"
    assert "LEAKED" not in str([line for line in lines if "cause" in line])
