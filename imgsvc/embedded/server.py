"""One server process: started, asked whether it is ready, signalled, stopped, killed."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

from imgsvc.embedded.errors import EmbeddedError
from imgsvc.embedded.ports import LOOPBACK

_READY_S = 20.0
_STOP_S = 10.0
_POLL_S = 0.02


class Server:
    """One server process on a port of its own that it keeps over restarts.

    Args:
        name: what it is called in messages and in the name of its log.
        port: the port it is given.
        command: its command line.
        log: the file that its output is appended to.
        probe: what to send it, and what its answer contains once it is ready to serve.
    """

    def __init__(
        self, name: str, port: int, command: list[str], log: Path, probe: tuple[bytes, bytes]
    ) -> None:
        self.name, self.port, self.log = name, port, log
        self._command = command
        self._probe = probe
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Starts the process without waiting until it serves."""
        if self.running:
            return
        self._reap()
        watcher = Path(__file__).with_name("child.py")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                # -I and -S: no site packages, no environment; it starts in a few milliseconds.
                [sys.executable, "-I", "-S", str(watcher), *self._command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.log.parent,
                # Ctrl-C goes to the whole foreground group. The owner stops its servers itself,
                # after the work that needs them.
                start_new_session=True,
                bufsize=0,
            )

    async def ready(self) -> None:
        """Returns when the server answers.

        Raises:
            EmbeddedError: if it ends or does not answer in time; carries the end of its log.
        """
        deadline = time.monotonic() + _READY_S
        # First the answer, then the life: another process's answer on this port is none.
        while not (await self._answers() and self.running):
            if not self.running:
                raise EmbeddedError(f"{self.name} ended while starting.\n{self._tail()}")
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"{self.name} did not answer within {_READY_S:g} s.\n{self._tail()}"
                )
            await asyncio.sleep(_POLL_S)

    async def start(self) -> None:
        """Starts the server and returns when it answers."""
        self.launch()
        await self.ready()

    async def stop(self) -> None:
        """Asks the server to end, and kills it when it does not."""
        if self._process is not None:
            self.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._process.wait, _STOP_S)
        self.kill()

    def kill(self) -> None:
        """Kills the server as ``kill -9`` does; returns when it is gone."""
        self.signal(signal.SIGKILL)
        self._reap()

    def signal(self, number: int) -> None:
        """Sends the server a signal: SIGSTOP and SIGCONT make it hang for a while.

        Args:
            number: the signal; nothing happens if the server is not running.
        """
        if self._process is None or self._process.stdin is None:
            return
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(bytes([number]))

    def _reap(self) -> None:
        if self._process is None:
            return
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None

    async def _answers(self) -> bool:
        question, answer = self._probe
        try:
            async with asyncio.timeout(1.0):
                reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
                try:
                    writer.write(question)
                    received = b""
                    while answer not in received:
                        chunk = await reader.read(4096)
                        if not chunk:
                            return False
                        received += chunk
                    return True
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False

    def _tail(self) -> str:
        text = self.log.read_text(errors="replace").strip()[-2000:]
        return f"The end of {self.log}:\n{text}"
