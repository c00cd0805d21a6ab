"""How long calls of the API take, asked by a client that knows when it wanted to ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

_OK = 300


async def at_rate(
    call: Callable[[], Awaitable[int]], per_s: float, seconds: float
) -> tuple[float, ...]:
    """Milliseconds of calls made at a fixed rate, however long earlier ones take.

    Args:
        call: makes one and gives its status.
        per_s: how many are begun each second.
        seconds: for how long.
    """
    began = time.monotonic()

    async def one(number: int) -> float:
        due = began + number / per_s
        await asyncio.sleep(due - time.monotonic())
        status = await call()
        if status >= _OK:
            raise RuntimeError(f"a call was answered with status {status}")
        return (time.monotonic() - due) * 1000

    return tuple(await asyncio.gather(*map(one, range(round(per_s * seconds)))))


async def as_fast_as_possible(
    call: Callable[[], Awaitable[int]], clients: int, calls: int
) -> float:
    """Calls a second that so many clients get answered together, each asking one by one."""
    left = iter(range(calls))
    began = time.monotonic()

    async def client() -> None:
        for _ in left:
            await call()

    await asyncio.gather(*(client() for _ in range(clients)))
    return calls / (time.monotonic() - began)


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many percent are not above."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
