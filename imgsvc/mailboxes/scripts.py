"""Runs the Lua scripts of ``lua/``: alone, or several in one trip to Redis."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from imgsvc.mailboxes.refusals import translated
from imgsvc.runtime.failpoints import NO_FAILPOINTS, Failpoints
from imgsvc.runtime.group_commit import GroupCommit

_GROUP_SIZE = 100
_GROUP_EVERY_S = 0.05

_Call = tuple[str, Sequence[str], Sequence[Any]]  # script, keys, arguments


class Scripts:
    """The scripts, each known by the name of its file.

    Args:
        client: from ``connect``.
        failpoints: for tests of faults; each script is one, named ``redis.<script>``.
    """

    def __init__(self, client: Redis, failpoints: Failpoints = NO_FAILPOINTS) -> None:
        self._client = client
        self._failpoints = failpoints
        self._grouped = GroupCommit[_Call, Any](self._run_group, _GROUP_SIZE, _GROUP_EVERY_S)
        self._scripts = {
            file.name.removesuffix(".lua"): client.register_script(file.read_text("utf-8"))
            for file in resources.files("imgsvc.mailboxes").joinpath("lua").iterdir()
            if file.name.endswith(".lua")
        }

    async def run(self, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a script.

        Raises:
            ServiceError: UNAVAILABLE if Redis is away.
        """
        with translated(), self._failpoints.around(f"redis.{script}"):
            return await self._scripts[script](keys=list(keys), args=list(args))

    async def run_grouped(self, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a script about one message; under load several share a trip to Redis.

        Raises:
            ServiceError: UNAVAILABLE if Redis is away.
        """
        with translated(), self._failpoints.around(f"redis.{script}"):
            answer = await self._grouped.submit((script, keys, args))
            if isinstance(answer, Exception):
                raise answer
        return answer

    async def _run_group(self, group: Sequence[_Call]) -> Sequence[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for script, keys, args in group:
            pipeline.evalsha(self._scripts[script].sha, len(keys), *keys, *args)
        answers = await pipeline.execute(raise_on_error=False)
        for number, (script, keys, args) in enumerate(group):
            if isinstance(answers[number], NoScriptError):  # nothing was done; this loads it
                try:
                    answers[number] = await self._scripts[script](keys=keys, args=args)
                except RedisError as error:  # the others in the group have their answers
                    answers[number] = error
        return answers
