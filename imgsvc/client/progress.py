"""How far a request is, until it has ended: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from imgsvc.client import text
from imgsvc.client.server import Json

if TYPE_CHECKING:
    from imgsvc.client.calls import Calls

OPEN = frozenset({"PENDING", "PROCESSING"})

_SOONEST_S, _LATEST_S = 0.25, 5.0  # between two looks; the longer it takes the rarer
_LINE_S = 5.0  # between two lines where there is no terminal


async def until_ended(calls: Calls, request_id: str) -> AsyncIterator[Json]:
    """The status object again and again; the last one is of a request that has ended."""
    started = time.monotonic()
    while True:
        status = await calls.status(request_id)
        yield status
        if status["status"] not in OPEN:
            return
        waited = time.monotonic() - started
        await asyncio.sleep(min(max(waited / 20, _SOONEST_S), _LATEST_S))


@contextmanager
def shown(console: Console) -> Iterator[Callable[[Json], None]]:
    """Gives a function that shows a status object."""
    if not console.is_terminal:
        yield _lines(console)
        return
    with Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[more]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
    ) as bar:
        task = bar.add_task("PENDING", total=None, more="")

        def update(status: Json) -> None:
            bar.update(
                task,
                description=status["status"],
                completed=status["processedImages"],
                total=status["totalImages"],
                more=_more(status),
            )

        yield update


@contextmanager
def saving(console: Console, total: int) -> Iterator[Callable[[int], None]]:
    """Gives a function that shows how many of the results are saved."""
    if not console.is_terminal:
        yield lambda _: None
        return
    with Progress(
        TextColumn("Saving"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


def _lines(console: Console) -> Callable[[Json], None]:
    last: dict[str, Any] = {"at": -_LINE_S, "status": None}

    def show(status: Json) -> None:
        now = time.monotonic()
        ended = status["status"] not in OPEN
        if status == last["status"] or (now - last["at"] < _LINE_S and not ended):
            return
        last.update(at=now, status=status)
        done, total = status["processedImages"], status["totalImages"]
        more = _more(status)
        line = f"{status['status']}: {done:,} of {text.count(total, 'image')}"
        console.print(f"{line}, {more}" if more else line, soft_wrap=True)

    return show


def _more(status: Json) -> str:
    share = text.saved(status["bytesIn"], status["bytesOut"])
    parts = [f"{text.percent(share)} saved"] if share is not None else []
    if status["failedImages"]:
        parts.append(f"{status['failedImages']:,} failed")
    return ", ".join(parts)
