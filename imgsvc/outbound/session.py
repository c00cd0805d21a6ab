"""The HTTP session of the way out: guarded sockets, no cookies, no proxies, and tolerant of long heads."""

from __future__ import annotations

import aiohttp

from imgsvc.outbound.guard import Guard
from imgsvc.outbound.resolver import Resolver
from imgsvc.outbound.response_heads import LONGEST_HEAD, MOST_FIELDS, Connector
from imgsvc.runtime.settings import Net

KEEP_ALIVE_S = 2.0
"""After this an idle connection is closed; the library may take as long again to notice."""

_CHUNK = 256 * 1024


def open_session(net: Net, guard: Guard, resolver: Resolver) -> aiohttp.ClientSession:
    """A session; whoever opens it closes it.

    Args:
        net: how the service calls itself.
        guard: opens the sockets.
        resolver: looks names up.
    """
    return aiohttp.ClientSession(
        connector=Connector(
            limit=0,
            keepalive_timeout=KEEP_ALIVE_S,
            resolver=resolver,
            use_dns_cache=False,  # the resolver has one; this one lets names wait for another's
            socket_factory=guard.open_socket,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        read_bufsize=_CHUNK,
        max_line_size=LONGEST_HEAD,
        max_field_size=LONGEST_HEAD,
        max_headers=MOST_FIELDS,
        headers={"User-Agent": net.user_agent},
    )
