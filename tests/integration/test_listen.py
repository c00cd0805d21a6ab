"""``imgsvc listen``: a developer sees each webhook and whether its signature is right."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from imgsvc.webhooks.signature import new_secret
from tests.conftest import SECRET
from tests.support import Service, wait_until


class Listener:
    """A running ``imgsvc listen``."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log

    async def said(self, text: str) -> str:
        """All that it printed, once that has this text."""

        async def there() -> str:
            printed = self._log.read_text()
            return printed if text in printed else ""

        printed: str = await wait_until(there, f"it prints {text!r}")
        return printed


@asynccontextmanager
async def listening(log: Path, *options: str, **environment: str) -> AsyncIterator[Listener]:
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "imgsvc", "listen", "--port", "0", *options),
            cwd=log.parent,
            env={**os.environ, **environment},
            stdout=out,
        )
    try:
        yield Listener(process, log)
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def send(service: Service, listener: Listener) -> tuple[str, int]:
    """Have a test sent to a listener; its address and what it answered."""
    url = (await listener.said("http://")).split()[2]
    _, told = await service.post("/api/webhooks/test", json={"url": url})
    return url, told["status"]


async def test_a_webhook_is_shown_with_a_valid_signature(service: Service, tmp_path: Path) -> None:
    async with listening(tmp_path / "log", "--secret", SECRET) as listener:
        url, status = await send(service, listener)
        assert status == 204
        printed = await listener.said("webhook.test")
        assert "signature valid" in printed
        assert "msg_test_" in printed
        # What is no webhook is shown harmlessly.
        async with service.session.post(url, data=b"\x1b[2J") as response:
            assert response.status == 401
        assert "\x1b" not in await listener.said("NOT VALID")


async def test_a_signature_that_is_wrong_or_cannot_be_checked_is_told_apart(
    service: Service, tmp_path: Path
) -> None:
    rotating = f'["{new_secret()}", "{SECRET}"]'
    async with (
        listening(tmp_path / "wrong", WEBHOOK_SECRET=new_secret()) as wrong,
        listening(tmp_path / "without") as without,
        listening(tmp_path / "settings", IMGSVC_WEBHOOK__SECRETS=rotating) as with_settings,
    ):
        for listener, status, said in (
            (wrong, 401, "NOT VALID"),
            (without, 204, "not checked"),
            (with_settings, 204, "signature valid"),
        ):
            assert (await send(service, listener))[1] == status
            printed = await listener.said(said)
            assert ("signature valid" in printed) == (listener is with_settings)
