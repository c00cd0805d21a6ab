"""``imgsvc webhooks``: after a receiver was down, an operator sends again what was given up."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from imgsvc.cli.main import cli
from tests.integration.test_dead_letters import imgsvc
from tests.support import Origin, Receiver


async def test_webhooks_that_were_given_up_are_listed_and_sent_again(
    start_service: Any, origin: Origin, receiver: Receiver
) -> None:
    service = await start_service(webhook={"attempts": 1})
    receiver.script = [500, 500, 200]
    url = f"{receiver.url}?token=hunter2"
    failed = []
    for _ in range(2):
        failed.append(await service.upload([[origin.url("none.jpg")]], webhookUrl=url))
        await service.announced(failed[-1])
    delivered = await service.upload([[origin.url("none.jpg")]], webhookUrl=url)
    await service.announced(delivered)

    listing = await imgsvc(service, "webhooks", "failed")
    assert all(request_id in listing for request_id in failed)
    assert "status 500" in listing
    assert delivered not in listing
    assert "hunter2" not in listing

    assert await imgsvc(service, "webhooks", "replay", "--since", "24h") == (
        "0: 2 will be sent again.\n"
    )
    for request_id in failed:
        status = await service.announced(request_id)
        assert status["webhook"] == {"status": "DELIVERED", "attempts": 1}
    ids = [one.headers["webhook-id"] for one in receiver.received]
    assert sorted(ids[3:]) == sorted(f"msg_{request_id}" for request_id in failed)


@pytest.mark.parametrize("wrong", ["yesterday", "2026-01-31T15:00", "1y", "-1h", ""])
def test_a_time_that_is_none_or_has_no_zone_is_refused_with_examples(wrong: str) -> None:
    told = CliRunner().invoke(cli, ["webhooks", "replay", "--since", wrong])
    assert told.exit_code == 2
    assert "24h" in told.stderr
