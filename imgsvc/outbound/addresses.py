"""Which IP addresses are public: an own table, since ``is_global`` calls too much global.

The entries are those of the IANA special-purpose registries and some that clouds made special.
"""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_DENIED_V4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",  # shared address space, in which a cloud has its metadata service
            "127.0.0.0/8",
            "168.63.129.16/32",  # a cloud's metadata service on a public address
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # multicast tunnels
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",
            "192.175.48.0/24",  # AS112
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
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",
        ),
    )
)
_ISATAP = (0x00005EFE, 0x02005EFE)


def literal(host: str) -> Address | None:
    """The address that ``host`` is, if it is one and not a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def unwrapped(address: Address) -> Address:
    """The IPv4 address in an IPv4-mapped one; any other as it is."""
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def is_public(address: Address) -> bool:
    """Whether an unwrapped address is one of the public internet.

    IPv6 addresses that carry an IPv4 address for some gateway (NAT64, 6to4, Teredo, ISATAP) are
    not, whatever they carry: where they end up is the gateway's decision.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not any(address in network for network in _DENIED_V4)
    interface = int(address) & 0xFFFF_FFFF_FFFF_FFFF
    return (
        address in _GLOBAL_V6
        and interface >> 32 not in _ISATAP
        and not any(address in network for network in _DENIED_V6)
    )
