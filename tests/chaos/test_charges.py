"""Who is charged when a replica dies: what it worked on, and not what waited there."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgsvc.embedded.servers import EmbeddedServers
from tests.chaos.album import picture
from tests.chaos.replicas import Replica
from tests.chaos.stack import post, service
from tests.support import wait_until

pytestmark = pytest.mark.long

WAITING = 50


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.xfail(
    strict=False, reason="not all are in hand after a restart at times; not explained"
)
async def test_an_image_that_kills_its_replicas_ends_alone(
    own_servers: EmbeddedServers, tmp_path: Path
) -> None:
    async with service(
        own_servers,
        "charges",
        9,
        tmp_path,
        IMGSVC_FETCH__CONCURRENCY="1",
        IMGSVC_REDIS__WINDOW="64",
    ) as stack:
        await stack.redis.flushdb()
        poison, *others = [picture(n) for n in range(1 + WAITING)]
        posted = stack.new_post([[poison], *([each] for each in others)])
        gate = stack.origin.hold(posted.name(0, 0))
        victim = stack.start("victim")
        await victim.ready()
        assert await post(victim, posted)
        for _ in range(5):
            await gate.reached.wait()  # it is being fetched, and all others wait in hand

            async def all_in_hand(victim: Replica = victim) -> bool:
                pending = await stack.redis.xpending("{imgsvc}:fetch", "imgsvc")
                _, found = await victim.call("GET", f"/status/{posted.accepted}")
                # One of the others may have been quicker than the first, after a replica was lost.
                return bool(pending["pending"] == found["totalImages"] - found["processedImages"])

            await wait_until(all_in_hand, "the others wait in hand")
            await victim.kill()
            gate.reached.clear()
            victim = stack.start("victim")
            await victim.ready()

        async def ended() -> bool:
            _, found = await victim.call("GET", f"/status/{posted.accepted}")
            return found["status"] not in {"PENDING", "PROCESSING"}

        await wait_until(ended, "the request ended", within_s=60)
        _, page = await victim.call(
            "GET", f"/api/requests/{posted.accepted}/images", params={"limit": "1000"}
        )
        first, *rest = [each["error"] and each["error"]["code"] for each in page["images"]]
        assert first == "INTERNAL"
        assert set(rest) == {None}
        gate.open()
        await stack.redis.flushdb()
