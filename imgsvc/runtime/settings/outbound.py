"""``[net]`` and ``[fetch]``: which addresses the service connects to, and how it fetches images."""

from __future__ import annotations

import ipaddress
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from imgsvc.runtime.settings.section import Count, Network, Port, Positive, Section

LONGEST_URL = 32_768
"""Characters: 100 of them, all outside of ASCII, are a product that MongoDB still takes."""


def _name_server(text: str) -> str:
    """An address, perhaps with a port, as ``1.1.1.1``, ``1.1.1.1:53`` or ``[2001:db8::1]:53``."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        parts = urlsplit(f"//{text}")
        try:
            ipaddress.ip_address(parts.hostname or "")
            if parts.port and text == parts.netloc and "@" not in text:
                return text
        except ValueError:
            pass
        raise ValueError("must be an IP address, or one with a port as in 10.0.0.53:53") from None
    return text


NameServer = Annotated[str, AfterValidator(_name_server)]


class Net(Section):
    """Which addresses the service connects to, for images and webhooks alike."""

    allow: tuple[Network, ...] = Field(
        (), description='Networks exempt from the guard, such as `["10.1.0.0/16"]`.'
    )
    deny: tuple[Network, ...] = Field(
        (), description="Networks refused beyond the built-in tables."
    )
    ports: tuple[Port, ...] = Field((80, 443, 8080, 8443), description="Ports to connect to.")
    connect_s: Positive = Field(5.0, description="For one connection.")
    resolve_s: Positive = Field(5.0, description="For one name.")
    nameservers: tuple[NameServer, ...] = Field(
        (),
        description='Such as `["10.0.0.53", "[2001:db8::53]:5353"]`; empty, those of the system.',
    )
    max_url_length: Annotated[int, Field(ge=256, le=LONGEST_URL)] = Field(
        8192,
        description="Characters of an image's or a webhook's URL, or of one redirected to; 32768 "
        "at most.",
    )
    user_agent: str = Field(
        "imgsvc/0.1 (image batch service)", description="The User-Agent header of calls."
    )


class Fetch(Section):
    """How images are fetched."""

    concurrency: Count = Field(
        16,
        description="Downloads at once; beside them as many of small requests as "
        "`[redis] window` / 4.",
    )
    per_host: Count = Field(
        8, description="Connections to one origin at most, of all replicas together."
    )
    ahead: Count = Field(
        32, description="Images fetched or being encoded, above which no more are fetched."
    )
    max_bytes: Count = Field(50 * 1024 * 1024, description="The largest image.")
    silence_s: Positive = Field(10.0, description="How long a download may send nothing.")
    min_bytes_per_s: Count = Field(2048, description="The lowest speed ...")
    slow_s: Positive = Field(5.0, description="... over each such time.")
    total_s: Positive = Field(30.0, description="For one image.")
    max_redirects: Annotated[int, Field(ge=0, le=20)] = Field(
        5, description="Redirects of one image."
    )
    attempts: Count = Field(2, description="Attempts for failures that may pass.")
    patience: Count = Field(
        5, description="Attempts if the origin asks to come back later (429, 503, Retry-After)."
    )
    failures: Count = Field(
        5, description="Failures in a row, after which an origin is left alone for some time."
    )
    rest_s: Positive = Field(
        1.0, description="The first such time; it doubles while the origin keeps failing."
    )
    longest_rest_s: Positive = Field(
        300.0, description="The longest such time, also of what an origin may ask for."
    )
    rests: Count = Field(
        4, description="Such times in a row that images wait for; after that they fail at once."
    )

    @model_validator(mode="after")
    def _rests_grow(self) -> Fetch:
        if self.longest_rest_s < self.rest_s:
            raise ValueError("longest_rest_s must be at least rest_s, the first of them")
        return self
