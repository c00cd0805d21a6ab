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
DEATHS = 5
BEGUN = 1_000_000  # deliveries in the pending list, by docs/reliability.md


@pytest.mark.asyncio(loop_scope="module")
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
        for _ in range(DEATHS):
            await gate.reached.wait()

            async def all_in_hand(victim: Replica = victim) -> bool:
                """The first one's work has begun, and is noted; the others wait."""
                held = await stack.redis.xpending_range("{imgsvc}:fetch", "imgsvc", "-", "+", 100)
                begun = sum(each["times_delivered"] >= BEGUN for each in held)
                _, found = await victim.call("GET", f"/status/{posted.accepted}")
                # The first is put aside while the dead replica has the origin's places; meanwhile
                # others may end.
                return begun == 1 and len(held) == found["totalImages"] - found["processedImages"]

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
        tries = [each for each in stack.origin.fetches if each.name == posted.name(0, 0)]
        assert len(tries) == DEATHS
        gate.open()
        await stack.redis.flushdb()
