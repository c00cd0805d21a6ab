"""Looks names up without a thread for each name, and checks the addresses that come back.

A name whose servers hang takes up some of its own tenant's lookups, and nothing of anybody else's.
c-ares asks the name servers. It remembers answers for as long as they say; these are checked at each
use like any answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Iterator
from contextvars import ContextVar

import aiodns
import pycares
from aiohttp.abc import AbstractResolver, ResolveResult

from imgsvc.outbound.guard import BlockedError, Guard
from imgsvc.runtime.fair_semaphore import FairSemaphore
from imgsvc.runtime.settings import Net

_MAX_ANSWERS = 8  # of a name that are dialled
# Two questions for each name: Docker's name server takes 1,024 at once, dnsmasq's usual limit
# is 150 for all of its clients.
_NAMES_AT_ONCE = 512
_NAMES_OF_A_TENANT = 128
_SHORTEST_TRY_S = 0.25  # c-ares' own; each further try waits for twice as long, less some chance
# Without EDNS. c-ares sends cookies with it, and believes nobody who forgets them between two
# answers, as forwarders do whose upstreams differ (c-ares issue 1081): names "time out" then.
# HOSTALIASES of the environment would rename hosts behind the guard's back.
_FLAGS = pycares.ARES_FLAG_NOALIASES
OURSELVES = ""
"""The tenant of what the service itself asks for."""

_LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))

_TENANT: ContextVar[str] = ContextVar("tenant_of_names", default=OURSELVES)


@contextlib.contextmanager
def on_behalf_of(tenant: str) -> Iterator[None]:
    """Count the names that are looked up in this context as a tenant's."""
    token = _TENANT.set(tenant)
    try:
        yield
    finally:
        _TENANT.reset(token)


class Resolver(AbstractResolver):
    """Resolves names within a time limit; one bad address refuses the whole name.

    The hosts file is looked at first. The system's search domains are tried only where private
    networks are allowed: a public name is complete as it stands.

    Args:
        guard: decides which addresses are bad.
        settings: the time for one name, and the name servers.
    """

    def __init__(self, guard: Guard, settings: Net) -> None:
        self._guard = guard
        self._limit_s = settings.resolve_s
        self._lookups = FairSemaphore(_NAMES_AT_ONCE, _NAMES_OF_A_TENANT)
        self._searches = bool(settings.allow)
        self._closed = False
        # So many tries that even the shortest ones fill the time.
        tries = max(3, math.ceil(math.log2(2 * self._limit_s / _SHORTEST_TRY_S)))
        self._dns = aiodns.DNSResolver(
            settings.nameservers or None,
            flags=_FLAGS if self._searches else _FLAGS | pycares.ARES_FLAG_NOSEARCH,
            timeout=min(1.0, self._limit_s),
            tries=tries,
        )

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """At most eight addresses of a name.

        Raises:
            BlockedError: one of its addresses, these or others, is not to be dialled.
            OSError: there is no such name, or the time is up.
        """
        if host.lower().removesuffix(".") == "localhost":
            found = self._loopback(port, family)
        else:
            async with self._lookups.hold(_TENANT.get()):
                found = await self._ask(host, port, family)
            for _, address in found:
                self._guard.check_dialled(address, port)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=of,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for of, address in found[:_MAX_ANSWERS]
        ]

    async def close(self) -> None:
        """Ask no more; whoever still waits for a name learns that there is none."""
        self._closed = True
        await self._dns.close()

    async def _ask(self, host: str, port: int, family: int) -> list[tuple[int, str]]:
        """The addresses of a name, the nearest first (RFC 6724)."""
        if self._closed:
            raise socket.gaierror(socket.EAI_AGAIN, "closed")
        # Without search a dot at the end means nothing, but names in a hosts file have none.
        name = host if self._searches else host.removesuffix(".")
        try:
            async with asyncio.timeout(self._limit_s):
                answer = await self._dns.getaddrinfo(
                    name, socket.AddressFamily(family), port, type=socket.SOCK_STREAM
                )
        except TimeoutError:
            raise socket.gaierror(socket.EAI_AGAIN, "no answer in time") from None
        except aiodns.error.DNSError as error:
            raise socket.gaierror(socket.EAI_NONAME, str(error.args[1])) from None
        return [(node.family, node.addr[0].decode()) for node in answer.nodes]

    def _loopback(self, port: int, family: int) -> list[tuple[int, str]]:
        """This machine, which no name server is asked about (RFC 6761, section 6.3).

        Nobody else chose these addresses, so that one of them may be refused without the other.
        """
        found: list[tuple[int, str]] = []
        for of, address in _LOOPBACK:
            with contextlib.suppress(BlockedError):
                self._guard.check_dialled(address, port)
                if family in (socket.AF_UNSPEC, of):
                    found.append((of, address))
        if not found:
            raise BlockedError
        return found
