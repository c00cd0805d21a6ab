"""What nobody wants any more goes: files whose message was lost, objects of cancelled images."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from imgsvc import app
from imgsvc.actors import Parts, Reaper
from imgsvc.domain.messages import Fetched, ImageJob
from imgsvc.domain.model import Recipe
from imgsvc.embedded.servers import EmbeddedServers
from imgsvc.mailboxes.connection import connect
from imgsvc.mailboxes.keys import FETCH, compress_lane
from imgsvc.runtime.settings import Settings
from tests.integration.proxy import between
from tests.support import Origin, Service, wait_until


@pytest.fixture
async def parts(make_settings: Callable[..., Settings]) -> AsyncIterator[Parts]:
    settings = make_settings(redis={"heartbeat_s": 1, "reconcile_s": 0.2})
    async with app.parts(settings) as made:
        await made.mailboxes.prepare()
        yield made
    async with connect(settings.redis) as client:
        await client.flushdb()


async def written(parts: Parts) -> str:
    """A file that a message is to keep alive from now on."""
    name = parts.spool.new_name()
    async with parts.spool.writing(name) as write:
        await write(b"a picture")
    parts.spool.let_go(name)
    return name


async def test_a_file_whose_message_was_lost_is_swept_and_no_other(parts: Parts) -> None:
    mailboxes, job = parts.mailboxes, ImageJob(request_id="r", product=0, index=0)
    kept, orphan = await written(parts), await written(parts)
    await mailboxes.streams.deal(FETCH, [job], bounded=False)
    inbox = mailboxes.inbox(FETCH)
    (taken,) = await inbox.take(1, 100) or await inbox.take(1, 100)
    facts = Fetched(file=kept, bytes_in=9, recipe=Recipe(), ms={})
    assert await mailboxes.streams.hand_off(taken, compress_lane(mailboxes.replica), job, facts)
    await inbox.close()

    reaper = Reaper(parts)
    running = asyncio.create_task(reaper.run())

    async def swept() -> bool:
        return parts.spool.unheld() == {kept}

    await wait_until(swept, "the orphan is swept, and nothing else")
    assert not parts.spool.path(orphan).exists()
    assert parts.spool.path(kept).exists()
    assert parts.spool.used_bytes == len(b"a picture")
    reaper.stop()
    await running


async def test_an_object_that_was_stored_while_its_image_was_cancelled_goes_at_once(
    start_service: Callable[..., Awaitable[Service]],
    make_settings: Callable[..., Settings],
    servers: EmbeddedServers,
    origin: Origin,
) -> None:
    """Whoever stored it takes it back; the Eraser would look for it in three minutes only."""
    settings = make_settings()
    async with between(servers.gcs.port) as proxy:
        far = {"emulator_host": f"http://127.0.0.1:{proxy.port}"}
        gcs = settings.gcs.model_copy(update=far)
        service = await start_service(settings.model_copy(update={"gcs": gcs}))
        proxy.hold = b"uploadType=multipart"
        request_id = await service.upload([[origin.url("rocket.jpg")]])
        await proxy.held.wait()
        await service.post(f"/api/requests/{request_id}/cancel")
        assert (await service.finished(request_id))["status"] == "CANCELLED"
        proxy.release()

        async def handled() -> bool:
            async with service.session.get(f"{service.url}/metrics") as response:
                lines = (await response.text()).splitlines()
            mine = 'imgsvc_message_seconds_count{actor="uploader"'
            return any(line.startswith(mine) for line in lines)

        await wait_until(handled, "the upload is done with")
        assert await service.objects(request_id) == []
