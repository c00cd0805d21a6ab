"""The commands of the documents do what the documents show, in order, on a real service."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.conftest import SECRET, free_port
from tests.contract.documents import DOCUMENTS, README, blocks, commands
from tests.contract.terminal import Imgsvc, Terminal, alike
from tests.photos import photo
from tests.support import TERMINAL, Server, Service, wait_until

DOCS = README.parent / "docs"
# What callers of this one need a key for.
OPERATIONS = DOCS / "operations.md"
WEBHOOKS = DOCS / "webhooks.md"


class Pictures(Server):
    """Serves a folder, as ``python3 -m http.server`` does for the reader."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        file = self._folder / request.match_info["path"]
        if not file.is_file():
            raise web.HTTPNotFound
        return web.FileResponse(file)


def reader(imgsvc: Imgsvc, folder: Path, service: Service, places: dict[str, str]) -> Terminal:
    """A terminal in a folder, for a service."""
    settings = service.settings
    return Terminal(
        imgsvc,
        folder,
        {
            "IMGSVC_SERVER": service.url,
            "MONGO_URI": settings.mongo.uri.get_secret_value(),
            "IMGSVC_MONGO__DATABASE": settings.mongo.database,
            "REDIS_PORT": str(settings.redis.port),
            "STORAGE_EMULATOR_HOST": str(settings.gcs.emulator_host),
            "GCP_BUCKET_NAME": settings.gcs.bucket,
            "IMGSVC_AUTH__MODE": settings.auth.mode or "none",
        },
        {
            "localhost:3000": service.url.removeprefix("http://"),
            "http://127.0.0.1:26535/imgsvc": f"{settings.gcs.emulator_host}/{settings.gcs.bucket}",
            "whsec_...": SECRET,
            **places,
        },
    )


async def at_rest(service: Service, request_id: str) -> None:
    """Nothing of a request is on its way."""

    async def rests() -> bool:
        _, found = await service.get(f"/status/{request_id}")
        if found.get("code") == "GONE":
            _, erased = await service.delete(f"/api/requests/{request_id}")
            return bool(erased["erased"])
        announced = not found["webhook"] or found["webhook"]["status"] != "PENDING"
        return announced and found["status"] in TERMINAL

    await wait_until(rests, f"{request_id} is at rest")


@pytest.mark.skipif(not shutil.which("curl"), reason="the documents use curl")
async def test_every_command_prints_what_is_shown(
    start_service: Callable[..., Any], receiver: Server, tmp_path: Path
) -> None:
    """One service for all documents, and one that asks for keys."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name, source in {
        "pictures/chair.jpg": "rocket.jpg",
        "pictures/armchair.jpg": "imagenet_07_609.jpg",
        "pictures/lamp.png": "coins.png",
        "chair-side.jpg": "imagenet_10_541.jpg",
        "rug.jpg": "imagenet_14_129.jpg",
    }.items():
        (tmp_path / name).write_bytes(photo(source))
    service: Service = await start_service()
    with_keys: Service = await start_service(auth={"mode": "keys"})
    async with Pictures(pictures) as origin, Imgsvc() as imgsvc:
        for document in DOCUMENTS:
            places = {
                "127.0.0.1:8000": origin.base.removeprefix("http://"),
                "127.0.0.1:9000": receiver.base.removeprefix("http://"),
            }
            if document == WEBHOOKS:
                port = str(free_port())
                places |= {"127.0.0.1:9000": f"127.0.0.1:{port}", "--port 9000": f"--port {port}"}
            asked = with_keys if document == OPERATIONS else service
            terminal = reader(imgsvc, tmp_path, asked, places)
            try:
                for command in commands(document):
                    await terminal.type(command)
            finally:
                await terminal.close()
            for here in terminal.ids.values():
                if here.count("-") == 4:
                    await at_rest(service, here)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_what_is_not_run_can_be_read_by_who_would(document: Path, tmp_path: Path) -> None:
    """Commands that need containers or a real bucket, and programs."""
    for text in blocks(document, "shell"):
        subprocess.run(["bash", "-n"], input=text.encode(), check=True)
    for text in blocks(document, "python"):
        compile(text, document.name, "exec")
    for text in blocks(document, "javascript"):
        (tmp_path / "receiver.mjs").write_text(text)
        if shutil.which("node"):
            subprocess.run(["node", "--check", tmp_path / "receiver.mjs"], check=True)


async def test_the_webhook_is_one(service: Service) -> None:
    [text] = blocks(WEBHOOKS, "json")
    body = json.loads(f"{{{text}}}")
    body["webhook"]["secret"] = SECRET
    body["products"] = [{"serialNumber": 1, "productName": "A", "inputUrls": ["https://a.bc/"]}]
    _, tried = await service.post("/api/upload?validate=true", json=body)
    assert tried["problems"] == []


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a 3 kB\n", "a 4,711 MB\n", True),
        ("a\n...\nd\n", "a\nb\nc\nd\n", True),
        ("a\n...\nd\n", "a\nd\n", True),
        ("a\n...\nd\n", "a\nb\n", False),
        ('{"bytesIn":1,\n"failed":2}\n', '{"bytesIn":5,"failed":2}', True),
        ('{"failed":2}', '{"failed":3}', False),
        ("2026-11-24T02:35:36.683Z\n", "2027-01-01T00:00:00Z\n", True),
        ("a\n", "", False),
        ("", "a\n", False),
    ],
)
def test_what_counts_as_the_same(shown: str, printed: str, same: bool) -> None:
    assert alike(shown, printed) is same
