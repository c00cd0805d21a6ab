"""The time as MongoDB keeps it, and how far the clocks of two replicas may differ."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

CLOCKS_AGREE = timedelta(seconds=5)  # if they differ by more, one of them is wrong


def next_attempt(now: datetime, wait_s: float) -> dict[str, datetime]:
    """The fields of a webhook that say when it is attempted next, and by whose clock."""
    return {"webhook.nextAt": now + timedelta(seconds=wait_s), "webhook.setAt": now}


def current_time() -> datetime:
    """The time, as it will be read again."""
    # MongoDB keeps milliseconds; more would make what we write differ from what we read.
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
