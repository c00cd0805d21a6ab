"""The OpenAPI document taken at its word: thousands of calls made from it, and never a 5xx."""

from __future__ import annotations

import asyncio
import json
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from imgsvc.mailboxes.keys import IN_FLIGHT
from tests import hostile
from tests.support import Origin, Receiver, Service, wait_until

pytestmark = pytest.mark.long

LOOPBACK = ip_network("127.0.0.0/8")
ELSEWHERE = ["::/0", *map(str, ip_network("0.0.0.0/0").address_exclude(LOOPBACK))]

# Left out: what is valid by the document may still be refused for its meaning (a URL that is none,
# a cursor that nobody gave), which no schema can tell. And a dry run answers 200 to what is wrong.
CONFIG = """
[generation]
deterministic = true

[checks]
positive_data_acceptance.enabled = false

[[operations]]
include-path = "/api/upload"
checks.negative_data_rejection.enabled = false

[dictionaries]
ids.values = {ids}
urls.values = {urls}
hooks.values = {hooks}

[parameters]
"path.id" = {{ dictionary = "ids", probability = 0.7 }}
"body.products[*].inputUrls[*]" = {{ dictionary = "urls", probability = 0.8 }}
"body.webhookUrl" = {{ dictionary = "hooks", probability = 0.6 }}
"body.webhook.url" = {{ dictionary = "hooks", probability = 0.6 }}
"body.url" = {{ dictionary = "hooks", probability = 0.6 }}
"""


@pytest.mark.timeout(600)
async def test_no_call_made_from_the_document_is_answered_with_5xx(
    start_service: Any, origin: Origin, receiver: Receiver, tmp_path: Path
) -> None:
    """Nor with a status, a media type or a body that the document does not promise."""
    service: Service = await start_service(net={"deny": ELSEWHERE})
    url = origin.add("small.png", hostile.WHOLE["png"])
    ids = [
        await service.upload([[url, origin.url("none")]], webhookUrl=receiver.url),
        await service.upload([[url]]),
    ]
    for request_id in ids:
        await service.finished(request_id)
    config = tmp_path / "schemathesis.toml"
    config.write_text(
        CONFIG.format(ids=json.dumps(ids), urls=json.dumps([url]), hooks=json.dumps([receiver.url]))
    )
    schemathesis = await asyncio.create_subprocess_exec(
        *(Path(sys.executable).with_name("schemathesis"), "--config-file", config),
        *("run", f"{service.url}/openapi.json", "--max-examples", "40", "--warnings", "off"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await schemathesis.communicate()
    assert schemathesis.returncode == 0, output.decode()

    async def all_ended() -> bool:
        open_ones = [
            (await service.get("/api/requests", status=status))[1]["requests"]
            for status in ("PENDING", "PROCESSING")
        ]
        return not any(open_ones) and not await client.zcard(IN_FLIGHT)

    settings = service.settings.redis
    async with redis.asyncio.Redis(port=settings.port, db=settings.db) as client:
        await wait_until(all_ended, "what was accepted is done")
