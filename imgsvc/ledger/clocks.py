"""The time as MongoDB keeps it, and times that were set by another replica's clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

CLOCKS_AGREE = timedelta(seconds=5)  # if they differ by more, one of them is wrong


def current_time() -> datetime:
    """The time, as it will be read again."""
    # MongoDB keeps milliseconds; more would make what we write differ from what we read.
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def is_past(field: str, set_at: str, now: datetime) -> dict[str, Any]:
    """The condition that a time has come.

    A time that was set by a clock far ahead of ours means nothing, and waiting for it could take as
    long as that clock was wrong; so it counts as past.

    Args:
        field: with the time.
        set_at: the field with the time at which it was set.
        now: the time by our clock.
    """
    return {"$or": [{field: {"$lte": now}}, {set_at: {"$gt": now + CLOCKS_AGREE}}]}
