"""Decides which URLs, names and addresses may be reached.

A URL is parsed once; the object that was checked is the one fetched. What is dialled is checked
again at the socket, after name resolution, where IP literals and rebinding cannot slip past.
"""

from __future__ import annotations

import ipaddress
import re
import socket

from aiohappyeyeballs import AddrInfoType
from yarl import URL

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.outbound import urls
from imgsvc.outbound.addresses import Address, is_public, literal, unwrapped
from imgsvc.runtime.settings import Net

_MAX_HOST = 253  # RFC 1035 section 2.3.4

# Controls, line breaks, halves of characters; and backslashes, which some read as slashes.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\\]")
_SEVERAL = re.compile(r"\s[a-z]+://", re.IGNORECASE)
_SCHEME = re.compile(r"https?://", re.IGNORECASE)
# Stricter than yarl, which takes zones, the future's "[v1.x]" and digits of any script.
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:%@]+)(:[0-9]{0,5})?", re.IGNORECASE)
_NAME = re.compile(r"([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}")
_NUMERIC_LABEL = re.compile(r"(0x[0-9a-f]*|[0-9]+)")
_PRIVATE_NAMES = (
    "localhost",
    "localdomain",
    "local",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "svc",
    "home.arpa",
    "onion",
)


class BlockedError(OSError):
    """Raised at the socket for an address that is not to be dialled."""


class Guard:
    """Decides which URLs and addresses may be reached.

    Args:
        settings: the ports, and the networks exempt or denied beyond the built-in tables.
    """

    def __init__(self, settings: Net) -> None:
        self._settings = settings

    def parse(self, text: str) -> URL:
        """The URL in ``text``, if the text alone does not rule it out.

        Blanks around it are left out. Its ``raw_path_qs`` is what is asked for, byte for byte: path
        and query are one in it, since a query that is there but empty would be lost otherwise.

        Raises:
            ServiceError: URL_INVALID or URL_BLOCKED; the detail names the rule.
        """
        longest = self._settings.max_url_length
        if len(text) > longest:
            raise _invalid(f"The URL is longer than {longest} characters.")
        text = text.strip(" ")
        if _UNSAFE.search(text):
            raise _invalid(
                "The URL contains control characters or backslashes; percent-encode them."
            )
        if _SEVERAL.search(text):
            raise _invalid("This is more than one URL; give each one a place of its own.")
        scheme = _SCHEME.match(text)
        if not scheme:
            raise _invalid("The URL must start with http:// or https://.")
        authority = re.split(r"[/?#]", text[scheme.end() :], maxsplit=1)[0]
        if "@" in authority:
            raise _invalid("The URL must not contain a user name or password.")
        if not _AUTHORITY.fullmatch(authority):
            raise _invalid("After :// must follow a host name or IP address, and perhaps a port.")
        try:
            url = URL(scheme[0] + authority)
            host, port = url.raw_host, url.port
        except ValueError:
            raise ServiceError(ErrorCode.URL_INVALID) from None
        self._check_host(host or "", port or 0)
        if literal(host or "") and not authority.isascii():
            raise _plain_v4()  # digits of other scripts become these
        return url.with_path(urls.target(text[scheme.end() + len(authority) :]), encoded=True)

    def _check_host(self, host: str, port: int) -> None:
        address = literal(host)
        if address is not None:
            self.check_address(address, port)
            return
        name = host.removesuffix(".")
        if len(name) > _MAX_HOST or not _NAME.fullmatch(name):
            raise _invalid("The host name is not a valid one.")
        if _NUMERIC_LABEL.fullmatch(name.rpartition(".")[2]):
            raise _plain_v4()
        if self._settings.allow:
            return  # exempt hosts may have private names: the address decides
        private = any(name == p or name.endswith(f".{p}") for p in _PRIVATE_NAMES)
        if private or "." not in name:
            raise ServiceError(ErrorCode.URL_BLOCKED, "The host name is not a public one.")
        if port not in self._settings.ports:
            raise ServiceError(ErrorCode.URL_BLOCKED, self._port_rule())

    def check_address(self, address: Address, port: int) -> None:
        """Refuse an address or port that is not to be dialled.

        Raises:
            ServiceError: URL_BLOCKED, without saying what the address was.
        """
        plain = unwrapped(address)
        if any(plain in network for network in self._settings.deny):
            raise ServiceError(ErrorCode.URL_BLOCKED)
        if any(plain in network for network in self._settings.allow):
            return
        if not is_public(plain):
            raise ServiceError(ErrorCode.URL_BLOCKED)
        if port not in self._settings.ports:
            raise ServiceError(ErrorCode.URL_BLOCKED, self._port_rule())

    def check_dialled(self, host: object, port: int) -> None:
        """Refuse an address in the form in which sockets name it.

        Raises:
            BlockedError: it is not to be dialled.
        """
        try:
            self.check_address(ipaddress.ip_address(str(host).partition("%")[0]), port)
        except (ServiceError, ValueError) as error:
            raise BlockedError from error

    def _port_rule(self) -> str:
        ports = ", ".join(map(str, self._settings.ports))
        return f"Only these ports are connected to: {ports}."

    def open_socket(self, info: AddrInfoType) -> socket.socket:
        """The socket for one dial, as aiohttp's ``socket_factory``.

        Raises:
            BlockedError: the address is not to be dialled.
        """
        family, kind, protocol, _, where = info
        self.check_dialled(where[0], where[1])
        return socket.socket(family=family, type=kind, proto=protocol)


def _plain_v4() -> ServiceError:
    return _invalid("Write an IPv4 address as four decimal numbers.")


def _invalid(detail: str) -> ServiceError:
    return ServiceError(ErrorCode.URL_INVALID, detail)
