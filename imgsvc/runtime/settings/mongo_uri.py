"""The connection string of MongoDB, as far as settings have to understand it.

Which database it names, and whether it is well formed, is known before any client is made.
What its options mean is the driver's business. No error from here holds a part of the string: a
password that is not escaped can end up in any of them. The form is that of
https://www.mongodb.com/docs/manual/reference/connection-string/.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import unquote_plus

_SCHEME, _SRV_SCHEME = "mongodb://", "mongodb+srv://"
_ESCAPE = "in a user name and password : / ? # [ ] @ and % are written with percent signs, as %40"

# What MongoDB takes nowhere, or not on every system that it runs on.
_NOT_IN_A_NAME = frozenset('/\\. "$*<>:|?')
_LONGEST_NAME_BYTES = 63
_MONGODBS_OWN = frozenset({"config", "local"})

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_MOST_PORT = 65535


def database_of(uri: str) -> str | None:
    """The database that a connection string names; None if it names none.

    Args:
        uri: ``mongodb://`` or ``mongodb+srv://``; no name in it is resolved.

    Raises:
        ValueError: what is wrong with its form.
    """
    if not uri.isprintable():
        raise ValueError("holds a control character or bytes that are no UTF-8")
    if uri.startswith(_SRV_SCHEME):
        scheme = _SRV_SCHEME
    elif uri.startswith(_SCHEME):
        scheme = _SCHEME
    else:
        raise ValueError(f"must begin with {_SCHEME} or {_SRV_SCHEME}")
    place, _, _ = uri.removeprefix(scheme).partition("?")
    authority, _, database = place.partition("/")
    user, at, hosts = authority.rpartition("@")
    if at:
        _check_user(user)
    for host in hosts.split(","):
        _check_host(host)
    if scheme == _SRV_SCHEME and re.search(r"[,:%\[]", hosts):
        raise ValueError(f"{_SRV_SCHEME} goes with one host name and no port")
    return check_database(unquote_plus(database)) if database else None


def check_database(name: str) -> str:
    """The name, if MongoDB takes it for a database of ours.

    Raises:
        ValueError: what is wrong with it.
    """
    if not name:
        raise ValueError("the name of the database is empty")
    wrong = sorted(_NOT_IN_A_NAME.intersection(name))
    if wrong:
        in_words = " ".join("a blank" if each == " " else each for each in wrong)
        raise ValueError(f"the name of a database cannot hold {in_words}")
    if not name.isprintable():
        raise ValueError("the name of a database cannot hold what is not printable")
    if len(name.encode()) > _LONGEST_NAME_BYTES:
        raise ValueError(f"the name of a database has at most {_LONGEST_NAME_BYTES} bytes")
    if name in _MONGODBS_OWN:
        raise ValueError(f"the database {name} is MongoDB's own; name another")
    return name


def _check_user(user: str) -> None:
    name, _, password = user.partition(":")
    if not name:
        raise ValueError("has no user name before the @")
    if "@" in user or ":" in password or _BAD_ESCAPE.search(user):
        raise ValueError(f"user name and password are not escaped: {_ESCAPE}")


def _check_host(host: str) -> None:
    if host.endswith(".sock"):
        return  # a path, all of it escaped
    if host.startswith("["):
        address, bracket, port = host[1:].partition("]")
        if not bracket or not _is_ipv6(address.partition("%25")[0]) or port[:1] not in {"", ":"}:
            raise ValueError("has an IPv6 address that is none; it is written [::1] or [::1]:27017")
        colon, port = port[:1], port[1:]
    else:
        name, colon, port = host.partition(":")
        if not name:
            raise ValueError(
                "names no host, or has a comma too many; "
                "a socket is written %2Ftmp%2Fmongodb-27017.sock"
            )
        if "%" in name or any(each.isspace() for each in name):
            raise ValueError("has a host name with a blank or percent sign in it")
    if colon and not _is_port(port):
        raise ValueError(f"has a port that is no number from 1 to {_MOST_PORT}; {_ESCAPE}")


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10 and 0 < int(text) <= _MOST_PORT  # noqa: PLR2004


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
