"""A replica whose wall clock is set wrong, and right again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web

from imgsvc.embedded.servers import EmbeddedServers
from tests.chaos.album import picture
from tests.chaos.invariants import check
from tests.chaos.stack import post, service
from tests.chaos.world import Gate, Witness
from tests.support import wait_until

pytestmark = pytest.mark.long

AHEAD_S = 200.0


@pytest.mark.asyncio(loop_scope="module")
async def test_what_a_wrong_clock_has_put_off_is_not_late(
    own_servers: EmbeddedServers, tmp_path: Path
) -> None:
    async with service(own_servers, "clock", 5, tmp_path) as stack, Witness() as receiver:
        replica = stack.start()
        assert await replica.ready()
        gate = Gate(_wrong)
        receiver.script = [gate.pass_through]
        replica.set_clock(AHEAD_S)

        async def is_ahead() -> bool:
            await replica.call("GET", "/healthz")
            told = datetime.fromisoformat(replica.events()[-1]["timestamp"])
            return told > datetime.now(UTC) + timedelta(seconds=AHEAD_S / 2)

        await wait_until(is_ahead, "the replica's clock is ahead")
        posted = stack.new_post([[picture(1)]], receiver)
        assert await post(replica, posted)
        await gate.reached.wait()
        gate.open()

        async def put_off() -> bool:
            _, found = await replica.call("GET", f"/api/requests/{posted.accepted}/deliveries")
            return bool(found["attempts"][0]["error"] and found["nextAttemptAt"])

        await wait_until(put_off, "the second attempt is planned")
        replica.set_clock(0)
        assert await check(stack, [posted]) == []


async def _wrong(_: web.Request) -> web.Response:
    return web.Response(status=500, headers={"Retry-After": "1"})
