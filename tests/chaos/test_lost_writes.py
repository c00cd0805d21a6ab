"""Each write to MongoDB of a request's life is lost once, or its reply; nothing else is."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from imgsvc.embedded.servers import EmbeddedServers
from tests.chaos.album import MISSING, picture
from tests.chaos.invariants import check
from tests.chaos.proxy import LedgerFault
from tests.chaos.stack import Stack, post, service
from tests.chaos.world import Witness
from tests.support import wait_until

pytestmark = pytest.mark.long


async def violations_when_lost(stack: Stack, fault: LedgerFault, passed: int) -> list[str]:
    """Have one write of a request's life harmed, when others have passed; what is wrong then."""
    (replica,) = stack.replicas
    stack.ledger.harm_once(fault, after=passed)
    async with Witness() as receiver:
        receiver.script = [500]
        posted = stack.new_post([[picture(passed), MISSING], [picture(passed + 1)]], receiver)
        await wait_until(lambda: post(replica, posted), "the client is told that it is accepted")
        return await check(stack, [posted])


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("fault", LedgerFault)
async def test_no_single_write_is_one_that_must_not_be_lost(
    fault: LedgerFault, own_servers: EmbeddedServers, tmp_path: Path
) -> None:
    number = list(LedgerFault).index(fault)
    async with service(own_servers, fault.name.lower(), number, tmp_path) as stack:
        assert await stack.start().ready()
        for passed in itertools.count():
            harmed = stack.ledger.harmed
            assert await violations_when_lost(stack, fault, passed) == [], f"after {passed}"
            if stack.ledger.harmed == harmed:  # a request has no more writes than these
                break
    assert passed > 10
