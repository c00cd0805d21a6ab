"""The address that a call comes from, and whose quota that address counts against."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from aiohttp import web

from imgsvc.runtime.settings import Network

_CUSTOMER_BITS = 64  # of an IPv6 address; the rest is the customer's to choose


def of(request: web.Request, trusted_proxies: Collection[Network]) -> str:
    """The client's address: the last hop that is not a trusted proxy.

    The client itself may have written whatever is further left in X-Forwarded-For.
    """
    hops = [h.strip() for h in ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")]
    address = request.remote or "unknown"
    for hop in reversed(hops):
        if not hop or not _is_in(address, trusted_proxies):
            break
        address = hop[:64]
    return address


def quota_tenant(client: str) -> str:
    """Whose quota an address counts against: a whole IPv6 network belongs to one customer."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv4Address):
        return client
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), _CUSTOMER_BITS), strict=False))


def _is_in(address: str, networks: Collection[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)
