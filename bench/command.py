"""Commands that get and run what the service is measured beside."""

from __future__ import annotations

import asyncio
import time


async def output_of(*words: str) -> str:
    """What a command prints.

    Raises:
        RuntimeError: it fails.
    """
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    told, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{words[0]} failed after {time.monotonic() - began:.0f} s")
    return told.decode()
