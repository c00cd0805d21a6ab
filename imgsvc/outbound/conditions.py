"""Conditional requests: a file is fetched only if it has changed (RFC 9110, section 13.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from imgsvc.domain.messages import Validators

_VALIDATOR = re.compile(r"[ -~]{1,200}")


def conditions_for(known: Validators | None) -> dict[str, str]:
    """The headers that ask for a file only if it has changed.

    Args:
        known: what the origin said of the file that we have; None if we have none.
    """
    headers = {"If-None-Match": known.etag, "If-Modified-Since": known.modified} if known else {}
    return {name: value for name, value in headers.items() if value}


def validators_of(headers: Mapping[str, str]) -> Validators:
    """What an origin says of a file, to be told to it the next time; what is odd is left out."""
    return Validators(etag=_plain(headers, "ETag"), modified=_plain(headers, "Last-Modified"))


def _plain(headers: Mapping[str, str], name: str) -> str | None:
    value = headers.get(name, "")
    return value if _VALIDATOR.fullmatch(value) else None
