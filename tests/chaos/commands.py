"""What clients do about requests that are there: each call is repeated until it is answered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import aiohttp

from tests.chaos.album import Picture
from tests.chaos.replicas import Replica
from tests.chaos.world import Posted
from tests.support import TERMINAL, wait_until

Anyone = Callable[[], Replica | None]  # who is called


async def cancel(anyone: Anyone, posted: Posted) -> list[str]:
    """Cancel a request unless it has finished; what is wrong with the answer."""
    path = f"/api/requests/{posted.accepted}/cancel"
    status, answer, _ = await _answered(anyone, "POST", path)
    posted.cancelled = status == 202
    finished = status == 409 and answer["code"] == "ALREADY_FINISHED"
    return [] if finished or posted.cancelled else [_wrong(posted, "cancel", status, answer)]


async def erase(anyone: Anyone, posted: Posted) -> list[str]:
    """Erase a request; what is wrong with the answer."""
    posted.erased = True
    status, answer, _ = await _answered(anyone, "DELETE", f"/api/requests/{posted.accepted}")
    return [] if status == 202 else [_wrong(posted, "erase", status, answer)]


async def retry(
    anyone: Anyone, posted: Posted, mended: Picture, codes: list[str] | None = None
) -> list[str]:
    """Wait for the end, put right what was missing, and have it done again.

    Args:
        anyone: who is called.
        posted: with at least one picture missing.
        mended: what takes the place of those.
        codes: what is to be retried; None: all.

    Returns:
        What is wrong with the answer.
    """
    await wait_until(lambda: _has_ended(anyone, posted), f"{posted.tag} has ended", 60)
    posted.mend(mended)
    posted.cycles += 1
    return await ask_to_retry(anyone, posted, {"codes": codes} if codes else {})


async def ask_to_retry(
    anyone: Anyone, posted: Posted, choice: dict[str, Any], *, asked: bool = False
) -> list[str]:
    """Have what failed done again; what is wrong with the answer.

    Args:
        anyone: who is called.
        posted: ended.
        choice: the body of the call.
        asked: whether it was asked before, and nobody answered.
    """
    path = f"/api/requests/{posted.accepted}/retry"
    status, answer, times = await _answered(anyone, "POST", path, json=choice)
    # A call that nobody answered may have worked; then it is under way by now, or done.
    repeated = status == 409 and answer["code"] in {"NOT_FINISHED", "NOTHING_TO_RETRY"}
    done = status == 202 or (repeated and (times > 1 or asked))
    return [] if done else [_wrong(posted, "retry", status, answer)]


async def _has_ended(anyone: Anyone, posted: Posted) -> bool:
    _, found, _ = await _answered(anyone, "GET", f"/status/{posted.accepted}")
    return found["status"] in TERMINAL


async def _answered(
    anyone: Anyone, method: str, path: str, **request: Any
) -> tuple[int, dict[str, Any], int]:
    """Status, answer, and how many calls it took."""
    times = 0
    while True:
        if replica := anyone():
            times += 1
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                status, answer = await replica.call(method, path, **request)
                if status != 503:
                    return status, answer, times
        await asyncio.sleep(0.2)


def _wrong(posted: Posted, command: str, status: int, answer: object) -> str:
    return f"{posted.tag} ({posted.accepted}): {command} was answered {status} {answer}"
