"""From an accepted request to its end: watched, shown, saved."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from imgsvc.client import progress, text, views
from imgsvc.client.server import Json, Server

if TYPE_CHECKING:
    from imgsvc.client.calls import Calls

FAILED, PARTIAL = 1, 3  # exit codes; 0 only if all worked out
_EXIT = {"COMPLETED": 0, "PARTIAL": PARTIAL}


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a user waits for.

    Attributes:
        server: where the request is.
        request_id: which one.
        report: the file that its CSV goes to, if wanted.
        results: the folder that its images go to, if wanted.
    """

    server: Server
    request_id: str
    report: Path | None
    results: Path | None

    @property
    def wants_files(self) -> bool:
        """Whether there is anything to save in the end."""
        return bool(self.report or self.results)

    def command(self, name: str) -> str:
        """A command about this request, to be typed."""
        words = ["imgsvc", name, self.request_id]
        if not self.server.implied:
            words += ["--server", str(self.server.url)]
        return shlex.join(words)

    @property
    def way_back(self) -> str:
        """The command that goes on waiting for the same."""
        words = ["--wait"]
        if self.report:
            words += ["--out", str(self.report)]
        if self.results:
            words += ["--download", str(self.results)]
        return f"{self.command('status')} {shlex.join(words)}"

    async def done(self, calls: Calls, out: Console, err: Console) -> int:
        """Wait, show what came of it, and save what is wanted.

        Args:
            calls: of the server.
            out: for what came of it.
            err: for how far it is.

        Returns:
            The exit code.

        Raises:
            CallError: a call did not work out.
            OSError: something could not be saved.
        """
        status: Json = {}
        with progress.shown(err) as show:
            async for status in progress.until_ended(calls, self.request_id):
                show(status)
        views.report(out, await calls.report(self.request_id))
        failed = status["failedImages"]
        if failed:
            err.print(
                f"\n{text.count(failed, 'image')} failed.\n"
                f"  See them:        {self.command('images')} --status FAILED\n"
                f"  Try them again:  {self.command('retry')}",
                markup=False,
                soft_wrap=True,
            )
        if self.report:
            await calls.download(self.request_id, self.report, columns="full")
            err.print(f"Report: {self.report}", markup=False, soft_wrap=True)
        unsaved = 0
        if self.results:
            unsaved = await self._save(self.results, calls, err, status)
        return FAILED if unsaved else _EXIT.get(status["status"], FAILED)

    async def _save(self, folder: Path, calls: Calls, err: Console, status: Json) -> int:
        """Save the results; returns how many could not be."""
        from imgsvc.client import downloads  # noqa: PLC0415 - it loads aiohttp

        total = status["processedImages"] - status["failedImages"]
        with progress.saving(err, total) as show:
            tally = await downloads.download(
                calls.images(self.request_id), folder, lambda tally: show(tally.done)
            )
        there = f", {tally.skipped:,} were there" if tally.skipped else ""
        line = f"Results: {text.count(tally.saved, 'file')} saved in {folder}{there}"
        err.print(line, markup=False, soft_wrap=True)
        if tally.failed:
            err.print(
                f"{text.count(tally.failed, 'result')} could not be had, such as "
                f"{text.plain(tally.problem)}\nTry again: {self.way_back}",
                style="red",
                markup=False,
                soft_wrap=True,
            )
        return tally.failed
