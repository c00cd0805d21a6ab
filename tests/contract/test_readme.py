"""What README shows of bodies and answers is so."""

from __future__ import annotations

import json

from tests.contract.documents import README, blocks, commands, option
from tests.support import Service

UPLOADS = [
    (option(words, "-d"), printed)
    for words, printed in commands(README)
    if words[0] == "curl" and "-d" in words and "localhost:3000/api/upload" in words
]
JSON = {"Content-Type": "application/json"}


async def test_every_upload_is_answered_as_it_says(service: Service) -> None:
    refused = 0
    for body, printed in UPLOADS:
        async with service.session.post(
            f"{service.url}/api/upload?validate=true", data=body.encode(), headers=JSON
        ) as response:
            tried = await response.json()
        if not printed.strip():
            assert tried["valid"], tried
            continue
        async with service.session.post(
            f"{service.url}/api/upload", data=body.encode(), headers=JSON
        ) as response:
            assert await response.text() == printed.replace("\n", "")
            assert response.status == json.loads(printed.replace("\n", ""))["status"] == 422
        refused += 1
    assert (len(UPLOADS), refused) == (2, 1)


async def test_the_webhook_is_one(service: Service) -> None:
    [text] = blocks(README, "json")
    body = json.loads(f"{{{text}}}")
    body["webhook"]["secret"] = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body["products"] = [{"serialNumber": 1, "productName": "A", "inputUrls": ["https://a.bc/"]}]
    _, tried = await service.post("/api/upload?validate=true", json=body)
    assert tried["problems"] == []
