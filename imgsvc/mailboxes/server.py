"""Whether the Redis that we are connected to will do, and whether it takes work at the moment."""

from __future__ import annotations

import contextlib
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.mailboxes import keys, rights
from imgsvc.mailboxes.refusals import code_of, translated, unusable

_CHECK_MS = 10_000


class Server:
    """The server that Redis is.

    Args:
        client: from ``connect``.
        replica: the id of this process.
    """

    def __init__(self, client: Redis, replica: str) -> None:
        self._client = client
        self._check_key = keys.check(replica)

    async def examine(self) -> None:
        """Look whether the service can work with this server.

        Raises:
            ServiceError: UNAVAILABLE; with a ``remedy`` if this one will not do as it is.
        """
        await self._look_at_mode()
        await self._look_at_rights()

    async def _look_at_mode(self) -> None:
        with translated():
            # Every connection begins with this command, so that every user may send it.
            answer: Any = await self._client.execute_command("HELLO")  # type: ignore[no-untyped-call]
        mode = answer.get("mode") if isinstance(answer, dict) else None
        if mode == "cluster":
            raise unusable(
                "This Redis is a node of a cluster, which is not supported: "
                "use a single Redis, or Sentinels."
            )
        if mode == "sentinel":
            raise unusable("This is a Redis Sentinel: write redis+sentinel://host:port/service.")

    async def _look_at_rights(self) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for words in rights.commands(f"{self._check_key}:rights"):
            pipeline.execute_command(*words)
        with translated():
            for answer in await pipeline.execute(raise_on_error=False):
                if isinstance(answer, Exception) and code_of(answer) not in rights.HARMLESS:
                    raise answer

    async def check(self) -> str:
        """Whether Redis takes writes and never evicts.

        Returns:
            ``ok``, and what cannot be known.

        Raises:
            ServiceError: UNAVAILABLE, with what is wrong.
        """
        with translated():
            # A Redis that is full, a replica, or short of replicas refuses this as it refuses work.
            await self._client.set(self._check_key, 1, px=_CHECK_MS)
        policy = await self._eviction_policy()
        if policy not in {None, "noeviction"}:
            raise ServiceError(
                ErrorCode.UNAVAILABLE, "Redis must run with maxmemory-policy noeviction."
            )
        return "ok" if policy else "ok, eviction policy unknown (INFO/CONFIG not allowed)"

    async def _eviction_policy(self) -> str | None:
        """What Redis does when it is full; None if it does not tell."""
        with translated():
            for ask in (  # managed services forbid the second, some users may do neither
                lambda: self._client.info("memory"),
                lambda: self._client.config_get("maxmemory-policy"),
            ):
                # Each service words its refusal in its own way. An error that passes by itself
                # would have failed the write above.
                with contextlib.suppress(ResponseError):
                    answer = await ask()
                    policy = answer.get("maxmemory_policy") or answer.get("maxmemory-policy")
                    if policy:
                        return str(policy)
        return None
