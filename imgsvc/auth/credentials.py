"""API keys as texts: ``isk_<id>_<secret>``. Nothing here does I/O.

A secret is 32 random bytes, which nobody can guess. So it is stored as a plain SHA-256; only a
password that people choose would need a slow hash.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import NamedTuple

PREFIX = "isk_"
_PATTERN = re.compile(r"isk_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


class Credential(NamedTuple):
    """An API key in its parts."""

    id: str
    secret: str

    def __str__(self) -> str:
        return f"{PREFIX}{self.id}_{self.secret}"

    @property
    def digest(self) -> bytes:
        """What is stored of the secret."""
        return hashlib.sha256(self.secret.encode()).digest()

    def fits(self, digest: bytes) -> bool:
        """Whether ``digest`` is that of this secret; compared in constant time."""
        return hmac.compare_digest(self.digest, digest)


def new() -> Credential:
    """A new random key."""
    return Credential(secrets.token_hex(8), secrets.token_urlsafe(32))


def parse(text: str) -> Credential | None:
    """The key in ``text``, or None if it does not look like one."""
    found = _PATTERN.fullmatch(text)
    return Credential(found[1], found[2]) if found else None
