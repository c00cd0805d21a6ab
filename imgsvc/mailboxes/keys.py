"""The names of everything that the service keeps in Redis."""

from __future__ import annotations

GROUP = "imgsvc"
TAG = "{imgsvc}"  # one hash tag, so that the scripts work on Redis Cluster
FETCH = f"{TAG}:fetch"
FETCH_PRIORITY = f"{FETCH}:priority"
COPIES = f"{TAG}:copies"
NOTIFY = f"{TAG}:notify"
DEAD = f"{TAG}:dead"
IN_FLIGHT = f"{TAG}:in-flight"
REPLICAS = f"{TAG}:replicas"
WAKE = f"{TAG}:wake"
DEALING = f"{TAG}:dealing"
ERASING = f"{TAG}:erasing"

SHARED = (FETCH, FETCH_PRIORITY, COPIES, NOTIFY)
"""The mailboxes that all replicas read. What a lost replica held in its lanes goes to the first."""


def compress_lane(replica: str) -> str:
    """The mailbox of one replica's Compressor: the bytes are where the Fetcher left them."""
    return f"{TAG}:compress:{replica}"


def upload_lane(replica: str) -> str:
    """The mailbox of one replica's Uploader."""
    return f"{TAG}:upload:{replica}"


def delayed(mailbox: str) -> str:
    """The ZSET of what waits to go back to ``mailbox``, by the time it is due."""
    return f"{mailbox}:delayed"


def waiting(mailbox: str) -> str:
    """The hash that counts, by request, what waits to go back to ``mailbox``."""
    return f"{mailbox}:waiting"


def limit(bucket: str) -> str:
    """The string that holds how much of a limit is used."""
    return f"{TAG}:limit:{bucket}"


def origin(name: str) -> str:
    """The hash of what replicas know about one origin."""
    return f"{TAG}:origin:{name}"


def check(replica: str) -> str:
    """A key that one replica writes to see whether it can."""
    return f"{TAG}:check:{replica}"
