"""What kills every replica that touches it is put aside, and can be tried again."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

from imgsvc.domain.messages import ImageJob
from imgsvc.domain.model import Recipe
from imgsvc.ledger import Ledger, NewProduct, NewRequest
from imgsvc.mailboxes.connection import connect
from imgsvc.mailboxes.keys import FETCH
from imgsvc.mailboxes.mailboxes import Mailboxes
from imgsvc.runtime.settings import Settings
from tests.support import Origin, Service, wait_until


async def lost_with_every_replica(settings: Settings, job: ImageJob) -> None:
    """Have a message taken by one replica after the other, each of which dies with it."""
    client = connect(settings.redis)
    for number in range(settings.redis.max_deliveries):
        replica = Mailboxes(client, settings.redis, f"victim-{number}")
        await replica.prepare()
        await replica.streams.deal(FETCH, [job], bounded=False)
        inbox = replica.inbox(FETCH)
        taken = await inbox.take(1, 100) or await inbox.take(1, 100)
        assert len(taken) == 1
        await replica.streams.begin(taken[0])
        await inbox.close()
        other = Mailboxes(client, settings.redis, "survivor")
        assert await other.replicas.reclaim(replica.replica) == 1
    await client.aclose()


async def imgsvc(service: Service, *command: str) -> str:
    """Run ``imgsvc`` against the servers of a service; returns what it printed."""
    environment = {
        **os.environ,
        "REDIS_PORT": str(service.settings.redis.port),
        "MONGO_URI": service.settings.mongo.uri.get_secret_value(),
        "IMGSVC_MONGO__DATABASE": service.settings.mongo.database,
        "COLUMNS": "200",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "imgsvc",
        *command,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return f"{process.returncode}: {out.decode()}"


async def a_dead_letter(
    make_settings: Callable[..., Settings], start_service: Any, url: str
) -> tuple[Service, str, str]:
    """A service with one failed request and its dead letter."""
    settings = make_settings()
    ledger = Ledger(settings.mongo)
    new = NewRequest([NewProduct("1", "A", [url])], Recipe())
    await ledger.uploads.accept(new)
    await ledger.backlog.start([new.id])
    await lost_with_every_replica(settings, ImageJob(request_id=new.id, product=0, index=0))
    ledger.close()
    service: Service = await start_service()
    status = await service.finished(new.id)
    assert (status["status"], status["failedImages"]) == ("FAILED", 1)

    async def listed() -> str:
        listing = await imgsvc(service, "dead", "list")
        return listing if new.id in listing else ""

    listing = await wait_until(listed, "the dead letter is listed")
    row = next(line for line in listing.splitlines() if new.id in line)
    return service, new.id, row.split("│")[1].strip()


async def test_an_image_that_is_lost_with_every_replica_fails_and_can_be_replayed(
    make_settings: Callable[..., Settings], start_service: Any, origin: Origin
) -> None:
    service, request_id, entry = await a_dead_letter(
        make_settings, start_service, origin.url("rocket.jpg")
    )
    (image,) = await service.images(request_id)
    assert image["error"]["code"] == "INTERNAL"
    assert '"index": 0' in await imgsvc(service, "dead", "show", entry)

    assert await imgsvc(service, "dead", "replay", entry) == "0: "
    assert (await service.finished(request_id))["status"] == "COMPLETED"
    assert "There are none." in await imgsvc(service, "dead", "list")


async def test_a_dead_letter_can_be_dropped(
    make_settings: Callable[..., Settings], start_service: Any, origin: Origin
) -> None:
    service, request_id, entry = await a_dead_letter(
        make_settings, start_service, origin.url("rocket.jpg")
    )
    assert await imgsvc(service, "dead", "drop", entry) == "0: "
    assert "There are none." in await imgsvc(service, "dead", "list")
    assert (await service.get(f"/status/{request_id}"))[1]["status"] == "FAILED"
    assert (await imgsvc(service, "dead", "replay", entry)).startswith("1: imgsvc: NOT_FOUND")
