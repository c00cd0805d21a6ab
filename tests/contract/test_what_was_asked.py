"""The examples of the user, to the letter: their bytes go in, and what is written comes out."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from imgsvc.cli.main import show_config
from imgsvc.runtime.settings import PLAIN_NAMES, load
from tests.contract.documents import ASKED, blocks
from tests.support import Origin, Receiver, Service

ROOT = Path(__file__).parents[2]
ORIGINAL = ROOT.parent / "shared" / "notes" / "what-was-asked.md"
UPLOAD, STATUS = blocks(ASKED, "json")
JSON = {"Content-Type": "application/json"}
LOOPBACK = ip_network("127.0.0.0/8")
ELSEWHERE = ["::/0", *map(str, ip_network("0.0.0.0/0").address_exclude(LOOPBACK))]


@pytest.mark.skipif(not ORIGINAL.exists(), reason="the original lies beside the repository or not")
def test_the_copy_is_the_original() -> None:
    assert ASKED.read_bytes() == ORIGINAL.read_bytes()


async def test_the_upload_is_accepted_as_it_stands(start_service: Callable[..., Any]) -> None:
    # Nothing of it is for the network of whoever runs the tests.
    service: Service = await start_service(net={"deny": ELSEWHERE}, webhook={"attempts": 1})
    async with service.session.post(
        f"{service.url}/api/upload", data=UPLOAD.encode(), headers=JSON
    ) as response:
        answer = await response.json()
        assert response.status == 202, answer
    shown = json.loads(re.search(r"answers `(\{.*\})`", ASKED.read_text())[1])  # type: ignore[index]
    assert answer == {**shown, "requestId": answer["requestId"]}
    assert isinstance(answer["requestId"], str)
    await service.announced(answer["requestId"])
    [image] = await service.images(answer["requestId"])
    [product] = json.loads(UPLOAD)["products"]
    assert (image["serialNumber"], image["productName"], [image["inputUrl"]]) == (
        product["serialNumber"],
        product["productName"],
        product["inputUrls"],
    )
    assert type(image["serialNumber"]) is int


async def test_it_goes_the_whole_way(service: Service, origin: Origin, receiver: Receiver) -> None:
    """The same bytes but for the two addresses, at which there is something here."""
    body = json.loads(UPLOAD)
    [[source]] = [product["inputUrls"] for product in body["products"]]
    text = UPLOAD.replace(source, origin.url("rocket.jpg"))
    text = text.replace(body["webhookUrl"], receiver.url)
    status, answer = await service.post("/api/upload", data=text.encode(), headers=JSON)
    assert status == 202, answer
    request_id = answer["requestId"]
    assert (await service.finished(request_id))["status"] == "COMPLETED"
    await service.announced(request_id)

    _, found = await service.get(f"/status/{request_id}")
    for name, shown in json.loads(STATUS).items():
        assert type(found[name]) is type(shown), name
        if name.endswith("At"):
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", found[name]), name
    assert (found["processedProducts"], found["totalProducts"]) == (1, 1)

    async with service.session.get(f"{service.url}/download/{request_id}") as response:
        assert response.content_type == "text/csv"
        [header, row] = csv.reader(io.StringIO(await response.text(), newline=""))
    columns = re.search(r"answers a CSV: (.*)\.", ASKED.read_text())
    assert columns
    assert ", ".join(header) == columns[1]
    assert row[:3] == ["1", "Example Product", origin.url("rocket.jpg")]
    assert (await service.stored(row[3]))[:2] == b"\xff\xd8"

    [told] = receiver.received
    event = json.loads(told.body)
    assert (event["type"], event["data"]["requestId"]) == ("request.completed", request_id)
    assert event["data"].keys() == found.keys()


def test_the_environment_is_read_as_it_stands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside the file of settings that comes with the service."""
    [text] = blocks(ASKED, "ini")
    said = dict(line.split("=", 1) for line in text.splitlines())
    assert said.keys() <= PLAIN_NAMES.keys()
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("IMGSVC_CONFIG", str(ROOT / "config.toml"))
    settings = load()
    assert settings.mongo.database == said["MONGO_URI"].rpartition("/")[2] == "image-processing"
    show_config()
    shown = capsys.readouterr().out
    assert 'database = "image-processing"' in shown
    assert said["MONGO_URI"] not in shown
    assert said["GCP_KEY_BASE64"] not in shown
    assert settings.http.port == int(said["PORT"])
    assert (settings.redis.host, settings.redis.port) == ("localhost", 6379)
    assert settings.mongo.uri.get_secret_value() == said["MONGO_URI"]
    assert settings.mongo.database == "image-processing"
    assert settings.webhook.attempts == int(said["WEBHOOK_RETRY_ATTEMPTS"])
    assert settings.webhook.delay_ms == int(said["WEBHOOK_RETRY_DELAY"])
    assert (settings.gcs.project, settings.gcs.bucket) == (
        "your-gcp-project-id",
        "your-bucket-name",
    )
