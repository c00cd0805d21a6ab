"""The grammar of ``REDIS_URL``: where Redis is, and as whom to speak to it.

``redis://`` and ``rediss://`` as ``[user[:password]@]host[:port][/db]``, ``unix://`` as
``[user:password@]/path[?db=n]``, ``redis+sentinel://`` and ``rediss+sentinel://`` as
``[user:password@]host[:port][,host[:port]…]/service[/db]``. User names, passwords, services and
paths are percent-decoded. The first three are the schemes of IANA's registry and of Redis' own
clients; the last two are those of other clients of Redis Sentinel.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, unquote

PORT, SENTINEL_PORT = 6379, 26379
SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
_LARGEST_PORT = 65_535
_HOST = re.compile(
    r"\[(?P<six>[0-9a-fA-F:.]+)\](?::(?P<port6>.*))?|(?P<host>[^:\[\]]+)(?::(?P<port>.*))?"
)
_NUMBER = re.compile(r"[0-9]{1,9}")
_NAME = re.compile(r"[A-Za-z0-9._-]+")  # of hosts, as resolvers and containers have them


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """What a URL says; None where it says nothing.

    Attributes:
        addresses: of Redis, which is one, or of its Sentinels; none for a socket file.
        path: of the socket file.
        service: the master's name at the Sentinels, if that is what they are.
        tls: whether connections are encrypted.
        username: who we are.
        password: and how we prove it.
        db: the number of the database.
    """

    addresses: tuple[Address, ...] = ()
    path: str | None = None
    service: str | None = None
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int | None = None


def parse(text: str) -> RedisUrl:
    """Read a URL.

    Raises:
        ValueError: what is wrong and how to say it. Never with the URL's own words but for the
            scheme and the names of parameters: a password may be anywhere in a malformed one.
    """
    scheme, separator, rest = text.strip().partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in SCHEMES:
        raise ValueError(f"must begin with one of {', '.join(f'{s}://' for s in SCHEMES)}")
    if any(ord(sign) <= ord(" ") for sign in rest) or "#" in rest:
        raise ValueError("holds a blank or a #; write those of a password as %20 and %23")
    rest, _, query = rest.partition("?")
    user, _, where = rest.rpartition("@")
    username, password = _credentials(user)
    who = RedisUrl(username=username, password=password, db=_asked_db(query))
    if scheme == "unix":
        if not where.startswith("/"):
            raise ValueError("must name a socket file by its whole path: unix:///run/redis.sock")
        return replace(who, path=unquote(where))
    found = replace(who, tls=scheme.startswith("rediss"))
    authority, _, path = where.partition("/")
    segments = [unquote(segment) for segment in path.split("/")] if path else []
    return (_of_sentinels if scheme.endswith("+sentinel") else _of_redis)(
        found, authority, segments
    )


def check_host(text: str) -> str:
    """The name or address of a host, if it is that alone.

    Raises:
        ValueError: what it may be, and where the rest goes.
    """
    host = text.strip()
    if _NAME.fullmatch(host):
        return host
    with contextlib.suppress(ValueError):
        return str(ipaddress.IPv6Address(host))
    raise ValueError(
        "must be the name or address of a host alone; its port is set in REDIS_PORT, and a whole "
        "URL in REDIS_URL"
    )


def _of_redis(found: RedisUrl, authority: str, segments: list[str]) -> RedisUrl:
    if "," in authority:
        raise ValueError(
            "names several hosts, which only redis+sentinel:// can; write a , in a password as %2C"
        )
    return replace(_with_db(found, segments), addresses=(_address(authority, PORT),))


def _of_sentinels(found: RedisUrl, authority: str, segments: list[str]) -> RedisUrl:
    if not segments or not segments[0]:
        raise ValueError("must name the master that the Sentinels watch: …://host:26379/name")
    return replace(
        _with_db(found, segments[1:]),
        service=segments[0],
        addresses=tuple(_address(one, SENTINEL_PORT) for one in authority.split(",")),
    )


def _with_db(found: RedisUrl, segments: list[str]) -> RedisUrl:
    if len(segments) > 1:
        raise ValueError("has more behind the database than there can be; write / as %2F")
    if not segments or not segments[0]:
        return found
    if found.db is not None:
        raise ValueError("names the database twice")
    return replace(found, db=_number(segments[0]))


def _credentials(user: str) -> tuple[str | None, str | None]:
    username, separator, password = user.partition(":")
    if "/" in user:
        raise ValueError("has a / in its user name or password; write it as %2F")
    return unquote(username) or None, (unquote(password) or None) if separator else None


def _asked_db(query: str) -> int | None:
    asked = parse_qsl(query, keep_blank_values=True)
    unknown = sorted({name for name, _ in asked} - {"db"})
    if unknown:
        raise ValueError(
            "has parameters, of which only db is known; the rest is set in [redis]: ca_file, for "
            "example. If the ? belongs to a password, write it as %3F"
        )
    if len(asked) > 1:
        raise ValueError("names the database twice")
    return _number(asked[0][1]) if asked else None


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError("must name the database by its number, such as /0")
    return int(text)


def _address(text: str, default_port: int) -> Address:
    found = _HOST.fullmatch(text)
    host = found and (found["six"] or found["host"])
    if not found or not host or (found["host"] and not _NAME.fullmatch(host)):
        raise ValueError(
            "must name a host, as in redis://redis.example:6379/0; in a password write : as %3A, "
            "/ as %2F, @ as %40"
        )
    port = found["port6"] if found["six"] else found["port"]
    if not port:
        return Address(host, default_port)
    if not (_NUMBER.fullmatch(port) and 0 < int(port) <= _LARGEST_PORT):
        raise ValueError("must have a number from 1 to 65535 as its port")
    return Address(host, int(port))
