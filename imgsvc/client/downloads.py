"""Results of a request as files, in a folder for each product."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import aiohttp

from imgsvc.client.files import replacing
from imgsvc.client.folders import Folders
from imgsvc.client.server import Json

_AT_ONCE = 8
_WAITS_S = (0.5, 1.0, 2.0)  # between tries
_CHUNK = 64 * 1024
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
_EXTENSION = re.compile(r"\.[a-z0-9]{1,5}")


@dataclass(slots=True)
class Tally:
    """What came of a download."""

    saved: int = 0
    skipped: int = 0
    failed: int = 0
    problem: str = ""  # of one that failed

    @property
    def done(self) -> int:
        """How many there is nothing left to do about."""
        return self.saved + self.skipped + self.failed


async def download(
    images: AsyncIterator[Json], folder: Path, progress: Callable[[Tally], None]
) -> Tally:
    """Save the results of images, in files named ``<serial number>/<index>.<ext>``.

    What is there already in its right size is left alone.

    Args:
        images: all of a request, in input order.
        folder: where to.
        progress: called after each.

    Raises:
        OSError: a file cannot be written.
    """
    tally = Tally()
    folders = Folders()
    product, name = -1, ""
    running: set[asyncio.Task[None]] = set()
    # No key goes along: results lie elsewhere.
    async with aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=True) as session:
        try:
            async for image in images:
                if image["product"] != product:
                    product = image["product"]
                    name = folders.name(str(image["serialNumber"]), product)
                if not image["outputUrl"]:
                    continue
                if len(running) >= _AT_ONCE:
                    running = await _some_done(running, asyncio.FIRST_COMPLETED)
                saving = _save(session, image, folder / name, tally, progress)
                running.add(asyncio.create_task(saving))
            if running:
                await _some_done(running, asyncio.ALL_COMPLETED)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
    return tally


async def _some_done(running: set[asyncio.Task[None]], when: str) -> set[asyncio.Task[None]]:
    done, running = await asyncio.wait(running, return_when=when)
    for task in done:
        task.result()
    return running


async def _save(
    session: aiohttp.ClientSession,
    image: Json,
    folder: Path,
    tally: Tally,
    progress: Callable[[Tally], None],
) -> None:
    """One result, tried again while its transfer fails."""
    url, size_bytes = image["outputUrl"], image["bytesOut"]
    extension = PurePosixPath(urlsplit(url).path).suffix
    extension = extension if _EXTENSION.fullmatch(extension) else ".bin"
    file = folder / f"{image['index']}{extension}"
    if file.is_file() and file.stat().st_size == size_bytes:
        tally.skipped += 1
        progress(tally)
        return
    for wait_s in (*_WAITS_S, None):
        try:
            await _fetch(session, url, size_bytes, file)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            if wait_s is None:
                tally.failed += 1
                tally.problem = f"{url}: {error or 'timed out'}"
            else:
                await asyncio.sleep(wait_s)
        else:
            tally.saved += 1
            break
    progress(tally)


async def _fetch(session: aiohttp.ClientSession, url: str, size_bytes: int, file: Path) -> None:
    async with session.get(url, raise_for_status=True) as response:
        with replacing(file) as out:
            written = 0
            async for chunk in response.content.iter_chunked(_CHUNK):
                written += out.write(chunk)
                if written > size_bytes:
                    break
            if written != size_bytes:
                raise ValueError(f"it is not the {size_bytes} bytes that were stored")
