"""The only way out to addresses that strangers choose: images and webhooks alike."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import aiohttp
from yarl import URL

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.messages import Validators
from imgsvc.outbound import urls
from imgsvc.outbound.addresses import literal
from imgsvc.outbound.bodies import BodyReader
from imgsvc.outbound.conditions import conditions_for, validators_of
from imgsvc.outbound.content_codings import Sniff
from imgsvc.outbound.fetch_errors import fetch_errors
from imgsvc.outbound.guard import Guard
from imgsvc.outbound.resolver import OURSELVES, Resolver, on_behalf_of
from imgsvc.outbound.session import open_session
from imgsvc.runtime.failpoints import NO_FAILPOINTS, Failpoints
from imgsvc.runtime.settings import Fetch, Net

_FETCH_HEADERS = {"Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Answer:
    """What the receiver of a POST answered; the body is not kept."""

    status: int
    retry_after: str | None


Visit = Callable[[URL], AbstractAsyncContextManager[bool]]
"""How to behave towards an origin. It yields whether to close the connection after use. What it raises
instead is passed on to whoever asked for the download."""


def _unannounced(_: URL) -> AbstractAsyncContextManager[bool]:
    return contextlib.nullcontext(enter_result=False)


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A file that was fetched."""

    bytes: int
    validators: Validators


class Outbound:
    """A guarded HTTP client.

    Args:
        net: what may be reached.
        fetch: limits of a download.
        sniff: tells an image by its first bytes.
        failpoints: for tests of faults.
    """

    def __init__(
        self, net: Net, fetch: Fetch, sniff: Sniff, failpoints: Failpoints = NO_FAILPOINTS
    ) -> None:
        self._failpoints = failpoints
        self.guard = Guard(net)
        self._net = net
        self._fetch = fetch
        self._bodies = BodyReader(fetch, net.user_agent, sniff)
        self._resolver = Resolver(self.guard, net)
        self._session = open_session(net, self.guard, self._resolver)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()
        await self._resolver.close()

    async def download(
        self,
        text: str,
        write: Callable[[bytes], Awaitable[None]],
        visit: Visit = _unannounced,
        known: Validators | None = None,
        tenant: str = OURSELVES,
    ) -> Downloaded | None:
        """Fetch a file, in pieces.

        Args:
            text: the URL.
            write: called with each piece.
            visit: entered with each origin while we are connected to it.
            known: what the origin said of the file that we have; an unchanged file is not fetched.
            tenant: whose share of name lookups it uses.

        Returns:
            What was fetched; None if it has not changed.

        Raises:
            ServiceError: with the code of an image that cannot be fetched.
        """
        conditions = conditions_for(known)
        deadline = asyncio.get_running_loop().time() + self._fetch.total_s
        step: URL | Downloaded | None = self.guard.parse(text)
        hops = 0
        while isinstance(step, URL):
            origin = step.origin()
            async with visit(origin) as closing:
                with fetch_errors(self._fetch), on_behalf_of(tenant):
                    async with asyncio.timeout_at(deadline):
                        while isinstance(step, URL) and step.origin() == origin:
                            if hops > self._fetch.max_redirects:
                                raise ServiceError(ErrorCode.TOO_MANY_REDIRECTS)
                            step = await self._hop(step, write, conditions, closing=closing)
                            hops += 1
        return step

    async def _hop(
        self,
        url: URL,
        write: Callable[[bytes], Awaitable[None]],
        conditions: Mapping[str, str],
        *,
        closing: bool,
    ) -> URL | Downloaded | None:
        """Ask once: gives the file, None if it has not changed, or the next URL, checked as well."""
        headers = {**_FETCH_HEADERS, **conditions}
        async with self._session.get(
            url,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._net.connect_s, sock_read=self._fetch.silence_s
            ),
            headers=headers | ({"Connection": "close"} if closing else {}),
        ) as response:
            location = response.headers.get("Location")
            if conditions and response.status == 304:  # noqa: PLR2004 - not modified
                return None
            if response.status not in _REDIRECTS or not location:
                size = await self._bodies.read(response, write, self._fetch.max_bytes)
                return Downloaded(size, validators_of(response.headers))
        return self.guard.parse(urls.resolve(str(url), location))

    async def read(self, text: str, *, limit_bytes: int, timeout_s: float) -> bytes:
        """Read a small document; redirects are not followed.

        Args:
            text: the URL.
            limit_bytes: of the document.
            timeout_s: for all of it.

        Raises:
            ServiceError: as of ``download``.
        """
        body = bytearray()

        async def keep(piece: bytes) -> None:
            body.extend(piece)

        with fetch_errors(self._fetch):
            async with (
                asyncio.timeout(timeout_s),
                self._session.get(
                    self.guard.parse(text),
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._net.connect_s),
                    headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                ) as response,
            ):
                await self._bodies.read(response, keep, limit_bytes)
        return bytes(body)

    async def address(self, text: str, tenant: str) -> str | None:
        """The address that would be connected to first; None if nobody can say.

        Args:
            text: the URL.
            tenant: whose share of name lookups it uses.
        """
        try:
            url = self.guard.parse(text)
            host, port = url.raw_host or "", url.port or 0
            if literal(host):
                return host
            with on_behalf_of(tenant):
                found = await self._resolver.resolve(host, port, socket.AF_UNSPEC)
        except (ServiceError, OSError):
            return None
        return next((each["host"] for each in found), None)

    async def post(
        self,
        text: str,
        body: bytes,
        headers: Mapping[str, str],
        timeout_s: float,
        tenant: str = OURSELVES,
    ) -> Answer:
        """Send a POST; redirects are not followed and at most 64 kB of the answer are read.

        Args:
            text: the URL.
            body: what to send.
            headers: with the content type.
            timeout_s: for all of it.
            tenant: whose share of name lookups it uses.

        Raises:
            ServiceError: URL_BLOCKED, URL_INVALID, DNS_FAILED, CONNECT_FAILED or FETCH_TIMEOUT.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        with (
            fetch_errors(self._fetch),
            on_behalf_of(tenant),
            self._failpoints.around("webhook.post"),
        ):
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
                # The status is the answer, whatever follows. We read some of it so that we can
                # use the connection to a polite receiver again.
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    async with asyncio.timeout_at(deadline):
                        await response.content.read(64 * 1024)
            return Answer(response.status, response.headers.get("Retry-After"))
