"""The only way out to addresses that strangers choose: images and webhooks alike.

A URL is parsed once; the object that was checked is the one fetched. What is dialled is checked
again at the socket, after name resolution, where IP literals and rebinding cannot slip past.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp
from aiohappyeyeballs import AddrInfoType
from yarl import URL

from imgsvc.backoff import parse_retry_after
from imgsvc.errors import ErrorCode, ServiceError
from imgsvc.failpoints import NO_FAILPOINTS, Failpoints
from imgsvc.settings import Fetch, Net

MAX_URL_LENGTH = 2048
_MAX_HOST, _MAX_LABEL = 253, 63  # RFC 1035 section 2.3.4
_CHUNK = 256 * 1024
# Statuses that speak of the moment rather than of the file.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TOO_MANY_ADDRESSES = 8

_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")
_NUMERIC_LABEL = re.compile(r"(0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)
_PRIVATE_NAMES = (
    "localhost",
    "local",
    "internal",
    "intranet",
    "svc",
    "lan",
    "home.arpa",
    "onion",
)

# ``is_global`` calls all of these global; notes: IANA special-purpose registries.
_DENIED_V4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "168.63.129.16/32",  # a cloud's metadata service on a public address
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",
        ),
    )
)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_DENIED_V6 = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # Teredo, ORCHID, benchmarking
            "2001:db8::/32",
            "2002::/16",  # 6to4
            "2620:4f:8000::/48",
            "3fff::/20",
        ),
    )
)
_ISATAP = (0x00005EFE, 0x02005EFE)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class BlockedError(OSError):
    """Raised at the socket for an address that is not to be dialled."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver of a POST said; its body is not kept."""

    status: int
    retry_after: str | None


class Guard:
    """Decides which URLs and addresses may be reached.

    Args:
        settings: the ports, and the networks exempt or denied beyond the built-in tables.
    """

    def __init__(self, settings: Net) -> None:
        self._settings = settings

    def parse(self, text: str) -> URL:
        """The URL in ``text``, if the text alone does not rule it out.

        Raises:
            ServiceError: URL_INVALID or URL_BLOCKED; the detail names the rule.
        """
        if len(text) > MAX_URL_LENGTH:
            raise ServiceError(
                ErrorCode.URL_INVALID, f"The URL is longer than {MAX_URL_LENGTH} characters."
            )
        if _UNSAFE.search(text):
            raise ServiceError(
                ErrorCode.URL_INVALID,
                "The URL contains spaces, control characters or backslashes; percent-encode them.",
            )
        try:
            url = URL(text)
            host, port = url.host, url.port
        except ValueError:
            raise ServiceError(ErrorCode.URL_INVALID) from None
        if url.scheme not in ("http", "https") or not host:
            raise ServiceError(
                ErrorCode.URL_INVALID, "The URL must start with http:// or https://."
            )
        if url.user is not None or url.password is not None or "@" in url.raw_authority:
            raise ServiceError(
                ErrorCode.URL_INVALID, "The URL must not contain a user name or password."
            )
        self._check_host(host, port or 0)
        return url

    def _check_host(self, host: str, port: int) -> None:
        address = _literal(host)
        if address is not None:
            self.check_address(address, port)
            return
        labels = host.removesuffix(".").lower().split(".")
        if len(host) > _MAX_HOST or any(not 0 < len(label) <= _MAX_LABEL for label in labels):
            raise ServiceError(ErrorCode.URL_INVALID, "The host name is not a valid one.")
        if _NUMERIC_LABEL.fullmatch(labels[-1]):
            raise ServiceError(
                ErrorCode.URL_INVALID, "Write an IPv4 address as four decimal numbers."
            )
        name = ".".join(labels)
        private = any(name == p or name.endswith(f".{p}") for p in _PRIVATE_NAMES)
        # Names that stay inside a network resolve only to addresses that must be exempt.
        if (private or len(labels) == 1) and not self._settings.allow:
            raise ServiceError(ErrorCode.URL_BLOCKED, "The host name is not a public one.")
        if not self._settings.allow and port not in self._settings.ports:
            raise ServiceError(ErrorCode.URL_BLOCKED, self._port_rule())

    def check_address(self, address: Address, port: int) -> None:
        """Refuse an address or port that is not to be dialled.

        Raises:
            ServiceError: URL_BLOCKED, without saying what the address was.
        """
        plain = _unwrapped(address)
        if any(plain in network for network in self._settings.deny):
            raise ServiceError(ErrorCode.URL_BLOCKED)
        if any(plain in network for network in self._settings.allow):
            return
        if not _is_public(plain):
            raise ServiceError(ErrorCode.URL_BLOCKED)
        if port not in self._settings.ports:
            raise ServiceError(ErrorCode.URL_BLOCKED, self._port_rule())

    def _port_rule(self) -> str:
        ports = ", ".join(map(str, self._settings.ports))
        return f"Only these ports are connected to: {ports}."

    def open_socket(self, info: AddrInfoType) -> socket.socket:
        """The socket for one dial, as aiohttp's ``socket_factory``.

        Raises:
            BlockedError: the address is not to be dialled.
        """
        family, kind, protocol, _, where = info
        try:
            self.check_address(ipaddress.ip_address(str(where[0]).partition("%")[0]), where[1])
        except (ServiceError, ValueError) as error:
            raise BlockedError from error
        return socket.socket(family=family, type=kind, proto=protocol)


class _Resolver(aiohttp.ThreadedResolver):
    """Names are resolved within a time limit, and one bad answer refuses the name."""

    def __init__(self, guard: Guard, limit_s: float) -> None:
        super().__init__()
        self._guard = guard
        self._limit_s = limit_s

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        async with asyncio.timeout(self._limit_s):
            answers = await super().resolve(host, port, family)
        for answer in answers:
            try:
                self._guard.check_address(ipaddress.ip_address(answer["host"]), port)
            except ServiceError as error:
                raise BlockedError from error
        return answers[:_TOO_MANY_ADDRESSES]


class Outbound:
    """A guarded HTTP client.

    Args:
        net: what may be reached.
        fetch: limits of a download.
        failpoints: for tests of faults.
    """

    def __init__(self, net: Net, fetch: Fetch, failpoints: Failpoints = NO_FAILPOINTS) -> None:
        self._failpoints = failpoints
        self.guard = Guard(net)
        self._net = net
        self._fetch = fetch
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                resolver=_Resolver(self.guard, net.resolve_s),
                socket_factory=self.guard.open_socket,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            headers={"User-Agent": net.user_agent},
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def download(self, text: str, write: Callable[[bytes], Awaitable[None]]) -> int:
        """Fetch a file, in pieces.

        Args:
            text: the URL.
            write: called with each piece.

        Returns:
            The number of bytes.

        Raises:
            ServiceError: with the code of an image that cannot be fetched.
        """
        with _fetch_errors(self._fetch):
            async with asyncio.timeout(self._fetch.total_s), self._get(text) as response:
                return await self._read(response, write)

    @contextlib.asynccontextmanager
    async def _get(self, text: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """Follow redirects in a loop of our own: each hop is checked as the first one was."""
        url = self.guard.parse(text)
        timeout = aiohttp.ClientTimeout(
            total=None,
            sock_connect=self._net.connect_s,
            sock_read=self._fetch.silence_s,
        )
        for _ in range(self._fetch.max_redirects + 1):
            async with self._session.get(
                url,
                allow_redirects=False,
                timeout=timeout,
                headers={"Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
            ) as response:
                location = response.headers.get("Location")
                if response.status not in _REDIRECTS or location is None:
                    yield response
                    return
            try:
                target = str(url.join(URL(location)))
            except ValueError:
                raise ServiceError(
                    ErrorCode.FETCH_STATUS, "The origin redirected to an unusable address."
                ) from None
            url = self.guard.parse(target)
        raise ServiceError(ErrorCode.TOO_MANY_REDIRECTS)

    async def _read(
        self, response: aiohttp.ClientResponse, write: Callable[[bytes], Awaitable[None]]
    ) -> int:
        if response.status != 200:  # noqa: PLR2004 - anything else has no whole picture
            raise ServiceError(
                ErrorCode.FETCH_STATUS,
                f"The origin answered with status {response.status}.",
                retry_after_s=_retry_after_s(response),
            )
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise ServiceError(
                ErrorCode.FETCH_STATUS, "The origin sent a compressed body although not asked to."
            )
        limit = self._fetch.max_bytes
        too_large = ServiceError(ErrorCode.TOO_LARGE, f"The file is larger than {limit} bytes.")
        if (response.content_length or 0) > limit:
            raise too_large
        total = 0
        async for piece in response.content.iter_chunked(_CHUNK):
            total += len(piece)
            if total > limit:
                raise too_large
            await write(piece)
        return total

    async def post(
        self, text: str, body: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> Answer:
        """Send a POST; redirects are not followed and at most 64 kB of the answer are read.

        Args:
            text: the URL.
            body: what to send.
            headers: with the content type.
            timeout_s: for all of it.

        Raises:
            ServiceError: URL_BLOCKED, URL_INVALID, DNS_FAILED, CONNECT_FAILED, FETCH_TIMEOUT or
                FETCH_TRUNCATED.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        with _fetch_errors(self._fetch), self._failpoints.around("webhook.post"):
            url = self.guard.parse(text)
            async with asyncio.timeout_at(deadline):
                response = await self._session.post(
                    url,
                    data=body,
                    headers=dict(headers),
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._net.connect_s),
                )
            async with response:
                # The status is the answer, however the rest goes on; some of it is read so that
                # the connection to a polite receiver can be used again.
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    async with asyncio.timeout_at(deadline):
                        await response.content.read(64 * 1024)
            return Answer(response.status, response.headers.get("Retry-After"))


@contextlib.contextmanager
def _fetch_errors(fetch: Fetch) -> Iterator[None]:
    """Our codes for whatever the client library raises."""
    try:
        yield
    except (aiohttp.ClientError, OSError, ValueError) as error:
        if _blocked(error):
            raise ServiceError(ErrorCode.URL_BLOCKED) from None
        code = next(code for kind, code in _CODES if isinstance(error, kind))
        detail = code.message
        if code is ErrorCode.FETCH_TIMEOUT:
            detail = f"Silence of {fetch.silence_s:g} s or over {fetch.total_s:g} s in all."
        raise ServiceError(code, detail) from None


# The first that matches; the library's classes overlap (its time-outs are OSErrors too).
_CODES: tuple[tuple[type[Exception], ErrorCode], ...] = (
    (aiohttp.ClientConnectorDNSError, ErrorCode.DNS_FAILED),
    (aiohttp.ConnectionTimeoutError, ErrorCode.CONNECT_FAILED),
    (aiohttp.ClientConnectorError, ErrorCode.CONNECT_FAILED),
    (TimeoutError, ErrorCode.FETCH_TIMEOUT),
    (aiohttp.InvalidURL, ErrorCode.URL_INVALID),
    (aiohttp.ClientPayloadError, ErrorCode.FETCH_TRUNCATED),
    (aiohttp.ServerDisconnectedError, ErrorCode.FETCH_TRUNCATED),
    (OSError, ErrorCode.FETCH_TRUNCATED),
    (Exception, ErrorCode.FETCH_STATUS),
)


def _retry_after_s(response: aiohttp.ClientResponse) -> float | None:
    """Seconds after which the same request may work; None if it will not."""
    if response.status not in _PASSING:
        return None
    return parse_retry_after(response.headers.get("Retry-After"), datetime.now(UTC)) or 0.0


def _blocked(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, BlockedError):
            return True
        error = getattr(error, "os_error", None) or error.__cause__ or error.__context__
    return False


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _unwrapped(address: Address) -> Address:
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not any(address in network for network in _DENIED_V4)
    interface = int(address) & 0xFFFF_FFFF_FFFF_FFFF
    return (
        address in _GLOBAL_V6
        and interface >> 32 not in _ISATAP
        and not any(address in network for network in _DENIED_V6)
    )
