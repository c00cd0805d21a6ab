"""Runs what a document shows after ``$``, and compares what is printed with what it shows.

Ids, keys, times and sizes are new each time. The first id that a document shows stands for the first
one that is printed, and so on; later commands get the real one. ``...`` stands for any lines.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from imgsvc.runtime.settings import is_setting
from tests.contract.documents import Command

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|isk_[0-9a-f]{16}_[\w-]{20,}")
_NEW = (
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z| UTC)"), "<time>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d\b"), "<day>"),
    (re.compile(r'"(bytesIn|bytesOut|latencyMs)":\d+'), r'"\1":<size>'),
    (re.compile(r"\b[\d.,]+ (?:bytes|B|kB|MB|ms|s|%)(?=\W|$)"), "<size>"),
    (re.compile(r"[ \t]+"), " "),
)
_LOOKS = re.compile(r"imgsvc (status|images|report|requests|dead list|webhooks failed) ")
_CURL_CHANGES = re.compile(r"\s(-d|--data\S*|-X)\s")
_SETS = re.compile(r"[A-Z_]+=")
_WITHIN_S = 30.0
_FORKS = """
import json, os, sys
from imgsvc.cli.main import main

for line in sys.stdin:
    sys.argv, folder, environment, out = json.loads(line)
    if child := os.fork():
        os.waitpid(child, 0)
        print(flush=True)
        continue
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number in (1, 2):
        os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout.reconfigure(line_buffering=True)  # as on a terminal
    main()
    sys.exit()
"""


class Imgsvc:
    """The ``imgsvc`` command in a process that has imported it: a shell takes seconds for that."""

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _FORKS),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        await self._process.wait()

    async def run(self, words: list[str], folder: Path, environment: Mapping[str, str]) -> str:
        """All that a command prints."""
        assert self._process.stdin
        assert self._process.stdout
        out = folder / "printed.txt"
        out.unlink(missing_ok=True)
        order = json.dumps([words, str(folder), {**environment}, str(out)])
        self._process.stdin.write(f"{order}\n".encode())
        assert await self._process.stdout.readline(), "it ended"
        return out.read_text()


class Terminal:
    """Where a reader types.

    Args:
        imgsvc: runs commands of this name.
        folder: to work in.
        environment: beside the one that the tests have.
        real: what stands for what a document shows, such as an address.
    """

    def __init__(
        self,
        imgsvc: Imgsvc,
        folder: Path,
        environment: Mapping[str, str],
        real: Mapping[str, str],
    ) -> None:
        self.ids: dict[str, str] = {}
        self._imgsvc = imgsvc
        self._folder = folder
        self._real = real
        own = {name: value for name, value in os.environ.items() if not is_setting(name)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"
        self._environment = {**own, "PATH": path, **environment}
        self._running: list[asyncio.subprocess.Process] = []

    async def type(self, command: Command) -> None:
        """Run a command as it stands; fails if it prints anything else.

        What only looks is repeated until it shows what the document shows.
        """
        text, shown = command
        name, _, file = text.strip().partition(" ")
        if name == "cat":  # the reader has this file
            (self._folder / file).write_text(self._replaced(shown))
            return
        if "until Ctrl-C" in shown:
            printed = await self._start(text)
        else:
            printed = await self._run(text)
        self._learn(shown, printed)
        deadline = asyncio.get_running_loop().time() + _WITHIN_S
        while not alike(self._replaced(shown), printed):
            late = asyncio.get_running_loop().time() > deadline
            if late or not only_looks(text):
                raise AssertionError(f"$ {text}{printed}\nbut the document shows\n{shown}")
            await asyncio.sleep(0.1)
            printed = await self._run(text)

    async def close(self) -> None:
        """Press Ctrl-C in all that still runs."""
        for process in self._running:
            process.send_signal(signal.SIGINT)
            await process.wait()

    async def _run(self, text: str) -> str:
        words = shlex.split(self._replaced(text))
        name = next(i for i, word in enumerate(words) if not _SETS.match(word))
        if words[name] == "imgsvc":
            said = dict(word.split("=", 1) for word in words[:name])
            environment = {**self._environment, **said}
            return await self._imgsvc.run(words[name:], self._folder, environment)
        process = await self._begin(text)
        printed, _ = await process.communicate()
        return printed.decode()

    async def _start(self, text: str) -> str:
        """The first line of what then goes on."""
        process = await self._begin(f"exec {text}")
        self._running.append(process)
        assert process.stdout
        return (await process.stdout.readline()).decode()

    async def _begin(self, text: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *("bash", "-c", self._replaced(text)),
            cwd=self._folder,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    def _learn(self, shown: str, printed: str) -> None:
        for there, here in zip(_ID.findall(shown), _ID.findall(printed), strict=False):
            self.ids.setdefault(there, here)
            if there.startswith("isk_"):  # it is revoked by the second part
                self.ids.setdefault(there.split("_")[1], here.split("_")[1])

    def _replaced(self, text: str) -> str:
        for there, here in (*self.ids.items(), *self._real.items()):
            text = text.replace(there, here)
        return text


def only_looks(text: str) -> bool:
    """Whether running it again changes nothing."""
    if text.startswith("curl "):
        return not _CURL_CHANGES.search(text)
    return bool(_LOOKS.match(f"{text.strip()} "))


def alike(shown: str, printed: str) -> bool:
    """Whether both say the same, times and sizes aside."""
    if shown.startswith("{"):  # for the reader it is folded
        shown = shown.replace("\n", "")
    pattern = "".join(
        r"(?:.*\n)*?" if line == "..." else f"{re.escape(line)}\n" for line in _lines(shown)
    )
    return bool(re.fullmatch(pattern, "".join(f"{line}\n" for line in _lines(printed))))


def _lines(text: str) -> list[str]:
    for new, known in _NEW:
        text = new.sub(known, text)
    return [line.strip() for line in text.splitlines() if line.strip()]
