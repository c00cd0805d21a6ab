"""A replica's heartbeat, which says that it is alive and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from pydantic import SecretStr

from imgsvc import app
from imgsvc.actors import Reaper, Supervisor
from imgsvc.embedded.servers import EmbeddedServers
from imgsvc.mailboxes.connection import connect
from imgsvc.mailboxes.keys import REPLICAS
from imgsvc.runtime.cancellation import cancel_and_wait
from imgsvc.runtime.settings import Settings
from tests.integration.proxy import between

HEARTBEAT_S = 2.0


async def test_it_goes_on_while_reaping_waits_for_mongodb(
    make_settings: Callable[..., Settings], servers: EmbeddedServers
) -> None:
    async with between(servers.mongo.port) as wire:
        wire.hold = b"intakes"
        settings = make_settings(redis={"heartbeat_s": HEARTBEAT_S})
        uri = SecretStr(f"mongodb://127.0.0.1:{wire.port}/")
        mongo = settings.mongo.model_copy(update={"uri": uri})
        settings = settings.model_copy(update={"mongo": mongo})
        async with app.parts(settings) as parts, connect(settings.redis) as redis:
            running = asyncio.create_task(Supervisor(parts, [Reaper]).run())
            await wire.held.wait()
            left = []
            for _ in range(30):
                await asyncio.sleep(HEARTBEAT_S / 20)
                expiry_ms = await redis.zscore(REPLICAS, parts.mailboxes.replica) or 0
                left.append(expiry_ms / 1000 - time.time())
            assert wire.held.is_set(), "it still waits"
            # Renewed four times per expiry, so that one that is lost or late does no harm.
            assert min(left) > HEARTBEAT_S / 2
            wire.release()
            await cancel_and_wait(running)
            await redis.flushdb()
