"""Replicas as an operator runs them: processes, to be stopped, killed, paused and replaced."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import psutil

from imgsvc.embedded.ports import free_ports

IMGSVC = (sys.executable, "-m", "imgsvc")
WANDERING = (sys.executable, "-m", "tests.chaos.wandering")
ROOT = Path(__file__).parents[2]
START_S = 60.0
LEAVE_S = 20.0


class Replica:
    """One ``imgsvc serve``.

    Args:
        name: of its log, and what it tells origins to be.
        environment: its settings.
        session: to call it with.
        folder: where its log goes.
    """

    def __init__(
        self, name: str, environment: dict[str, str], session: aiohttp.ClientSession, folder: Path
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._clock = folder / f"{name}.clock"
        self.paused = False
        self.pauses = 0
        self._port = free_ports(1)[0]
        self._session = session
        self.process = subprocess.Popen(
            [*WANDERING, str(self._clock), "serve"],
            cwd=folder,
            env={**environment, "PORT": str(self._port), "IMGSVC_NET__USER_AGENT": name},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )
        # Through a pipe: a limit on the size of files is one of the faults.
        self._pump = threading.Thread(target=self._write_log, daemon=True)
        self._pump.start()

    def _write_log(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as out, self.log.open("ab", buffering=0) as log:
            shutil.copyfileobj(out, log)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def running(self) -> bool:
        """Whether the process lives, paused or not."""
        return self.process.poll() is None

    @property
    def at_work(self) -> bool:
        """Whether it lives and is not paused."""
        return self.running and not self.paused

    @property
    def id(self) -> str:
        """What it calls itself in Redis and in the spool; nothing before it listens."""
        started = (e for e in self.events() if e.get("event") == "service.started")
        return str(next(started, {}).get("replica", ""))

    def events(self) -> list[dict[str, Any]]:
        """Its log so far."""
        found = []
        for line in self.log.read_bytes().splitlines():
            with contextlib.suppress(orjson.JSONDecodeError):
                found.append(orjson.loads(line))
        return found

    async def ready(self) -> bool:
        """Wait until it is ready; False if it ended instead."""
        deadline = time.monotonic() + START_S
        while self.running:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                status, _ = await self.call("GET", "/readyz")
                if status == 200 and self.id:  # not somebody else who got its port
                    return True
            assert time.monotonic() < deadline, f"not ready: {self.log}"
            await asyncio.sleep(0.05)
        return False

    async def call(
        self, method: str, path: str, within_s: float = 5.0, **request: Any
    ) -> tuple[int, Any]:
        """Status and JSON of one HTTP call.

        Raises:
            aiohttp.ClientError: it broke off.
            TimeoutError: there was no answer.
        """
        timeout = aiohttp.ClientTimeout(total=within_s)
        async with self._session.request(
            method, self.url + path, timeout=timeout, **request
        ) as response:
            return response.status, await response.json(content_type=None)

    async def open_files(self, within_s: float = 5.0) -> int:
        """How many it says it has open; 0 where it cannot tell.

        Raises:
            aiohttp.ClientError: it broke off.
            TimeoutError: there was no answer.
        """
        timeout = aiohttp.ClientTimeout(total=within_s)
        async with self._session.get(f"{self.url}/metrics", timeout=timeout) as response:
            found = re.search(r"^process_open_fds ([\d.e+]+)$", await response.text(), re.MULTILINE)
        return round(float(found[1])) if found else 0

    async def ended(self, within_s: float) -> int:
        """Wait for the process to end; its exit code, minus the signal that killed it."""
        deadline = time.monotonic() + within_s
        while self.running:
            assert time.monotonic() < deadline, f"still running after {within_s:g} s: {self.log}"
            await asyncio.sleep(0.02)
        self._pump.join()
        return self.process.wait()

    async def kill(self) -> None:
        """As ``kill -9``; harmless if it ended already."""
        self.process.kill()
        await self.ended(5)

    async def leave(self) -> int:
        """As ``kill``, waiting; its exit code."""
        self.process.terminate()
        return await self.ended(LEAVE_S)

    def pause(self) -> None:
        """Stop its clock: it holds what it holds and knows nothing of it."""
        self.process.send_signal(signal.SIGSTOP)
        self.paused = True
        self.pauses += 1

    def resume(self) -> None:
        """Let it go on as if nothing had been."""
        self.process.send_signal(signal.SIGCONT)
        self.paused = False

    def set_clock(self, wrong_by_s: float) -> None:
        """Set its wall clock wrong by so many seconds, or right again by 0."""
        written = self._clock.with_suffix(".new")
        written.write_text(str(wrong_by_s))
        written.rename(self._clock)

    def codec_workers(self) -> list[psutil.Process]:
        """Its worker processes: what its fork server forked."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [
                worker
                for child in psutil.Process(self.process.pid).children()
                for worker in child.children()
            ]
        return []


async def operate(environment: dict[str, str], folder: Path, *command: str) -> tuple[int, str]:
    """Run an operator's command, such as ``dead list``; exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *IMGSVC,
        *command,
        cwd=folder,
        env={**environment, "COLUMNS": "200"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


def inherited() -> dict[str, str]:
    """The environment of this process, but for what would be settings, able to import imgsvc."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), "IMGSVC_LOG__FORMAT": "json"}
