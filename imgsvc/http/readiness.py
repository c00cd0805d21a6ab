"""Whether the servers that this replica needs answer, for ``/readyz``.

Anybody may call, as often as they like. So there is one check of a server at a time, which all
calls share, and a failure is kept for a moment: a server that is in trouble or hangs does not get
one more check for each call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from imgsvc.domain.errors import ServiceError
from imgsvc.runtime import logs
from imgsvc.runtime.cancellation import cancel_and_wait
from imgsvc.runtime.settings import SettingsError

_ANSWER_S = 4.0  # nobody waits longer for a check
_GIVEN_UP_S = 30.0  # then a check that hangs is replaced
_FAILURE_HOLDS_S = 2.0
_BUCKET_HOLDS_S = 15.0  # each check costs money at the real bucket
_log = logs.get("http")

Check = Callable[[], Awaitable[str | None]]


class Readiness:
    """Checks Redis, MongoDB and the bucket.

    Args:
        redis: raises ServiceError if something is wrong; returns what it could not check, if any.
        mongo: likewise.
        bucket: likewise.
    """

    def __init__(self, redis: Check, mongo: Check, bucket: Check) -> None:
        self._servers = {
            "redis": _Server(redis),
            "mongo": _Server(mongo),
            "bucket": _Server(bucket, holds_s=_BUCKET_HOLDS_S),
        }

    async def checks(self) -> dict[str, str]:
        """By name of the server: ``ok``, possibly with what could not be checked, or what is wrong."""
        results = await asyncio.gather(*(server.result() for server in self._servers.values()))
        return dict(zip(self._servers, results, strict=True))

    async def close(self) -> None:
        """Cancel the checks."""
        for server in self._servers.values():
            await server.close()


class _Server:
    """One server, with its current or last check.

    Args:
        check: see above.
        holds_s: how long a success is kept.
    """

    def __init__(self, check: Check, holds_s: float = 0.0) -> None:
        self._check = check
        self._holds_s = holds_s
        self._asking: asyncio.Task[str] | None = None
        self._asked_at = 0.0
        self._last = ""
        self._last_until = float("-inf")

    async def result(self) -> str:
        now = time.monotonic()
        if now < self._last_until:
            return self._last
        if self._asking and not self._asking.done() and now > self._asked_at + _GIVEN_UP_S:
            self._asking.cancel()
            self._asking = None
        if self._asking is None or self._asking.done():
            self._asked_at = now
            self._asking = asyncio.create_task(self._ask())
        # asyncio.wait does not cancel the check, which others share. All wait as long as the first.
        left_s = max(0.0, self._asked_at + _ANSWER_S - now)
        done, _ = await asyncio.wait({self._asking}, timeout=left_s)
        return next((task.result() for task in done), f"no answer within {_ANSWER_S:g} s")

    async def _ask(self) -> str:
        holds_s = _FAILURE_HOLDS_S
        try:
            result = await self._check() or "ok"
            holds_s = self._holds_s
        except ServiceError as error:
            result = error.detail
        except SettingsError:
            result = "made for a newer version of this service"
        except Exception:  # noqa: BLE001 - goes into the answer and the log
            _log.exception("readiness.failed")
            result = "the check failed; the log says why"
        self._last, self._last_until = result, time.monotonic() + holds_s
        return result

    async def close(self) -> None:
        if self._asking:
            await cancel_and_wait(self._asking)
