"""How long to wait after a failure: attempt, Retry-After and jitter in, seconds out.

A schedule is a tuple of waits in seconds: entry 0 follows the first failure, and a failure
beyond the last entry means giving up. Webhooks, fetches and actor restarts all use it.
Nothing here sleeps, reads a clock or draws a random number: the caller passes those in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

RETRY_AFTER_STRETCH = 10
"""How many times its planned length a wait may become because the other side asks for it."""


def exponential(
    attempts: int, base_s: float, *, factor: float = 2.0, cap_s: float = 3600.0
) -> tuple[float, ...]:
    """A schedule whose waits grow by a factor: ``exponential(5, 1)`` is ``(1, 2, 4, 8)``.

    Args:
        attempts: how many tries there are in all; one wait fewer lies between them.
        base_s: the first wait, in seconds.
        factor: what each wait is multiplied by to give the next.
        cap_s: no wait is longer than this many seconds.
    """
    waits: list[float] = []
    wait_s = base_s
    for _ in range(attempts - 1):
        waits.append(min(wait_s, cap_s))
        wait_s *= factor  # unlike factor**n, this ends in inf and not in an OverflowError
    return tuple(waits)


def next_wait_s(
    schedule: Sequence[float],
    attempt: int,
    *,
    jitter: float = 0.0,
    rand: float = 0.0,
    retry_after_s: float | None = None,
) -> float | None:
    """The seconds to wait after the attempt-th failure, or None to give up.

    Jitter moves a planned wait both ways. A wait that the other side asked for is only made
    longer by it, so nobody is called back sooner than they asked.

    Args:
        schedule: the planned waits in seconds.
        attempt: how many attempts have failed so far, counted from 1.
        jitter: the largest part of the wait that is added or taken off at random; 0.1 makes it
            up to a tenth longer or shorter.
        rand: a random number in [0, 1).
        retry_after_s: what the other side asks for. It is heard from the planned wait up to
            ``RETRY_AFTER_STRETCH`` times that, and cut to those bounds outside of them: a
            stranger may slow us down, but neither hurry us nor park our work for a year.

    Raises:
        ValueError: attempt is below 1.
    """
    if attempt < 1:
        raise ValueError(f"attempt counts from 1, got {attempt}")
    if attempt > len(schedule):
        return None
    planned_s = schedule[attempt - 1]
    if retry_after_s is None:
        return planned_s * (1 + jitter * (2 * rand - 1))
    most_s = RETRY_AFTER_STRETCH * planned_s
    return min(max(planned_s, retry_after_s) * (1 + jitter * rand), most_s)


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """The seconds that a Retry-After header asks for, or None if it says nothing usable.

    Both forms of RFC 9110 §10.2.3 are read: a number of seconds and an HTTP date.

    Args:
        value: the header's value, None if there was none.
        now: the present moment, with a time zone.

    Returns:
        Seconds from ``now``, never negative and never infinite: a date in the past gives 0.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        seconds = float(text)
        return seconds if math.isfinite(seconds) else None
    try:
        due = parsedate_to_datetime(text)
        if due.tzinfo is None:  # asctime form: HTTP dates are always in UTC
            due = due.replace(tzinfo=UTC)
        return max(0.0, (due - now).total_seconds())
    except (ValueError, OverflowError):
        return None
