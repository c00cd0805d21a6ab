"""Running the calls of a command, and how each command ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import orjson
import typer
from rich.console import Console

from imgsvc.client import terminal, views
from imgsvc.client.server import CallError, Json, Server
from imgsvc.client.waiting import FAILED, Waiting

if TYPE_CHECKING:
    from imgsvc.client.calls import Calls

T = TypeVar("T")

INTERRUPTED = 130  # as shells report Ctrl-C


def call(
    server: Server, make: Callable[[Calls], Coroutine[Any, Any, T]], way_back: str | None = None
) -> T:
    """What the calls give; a refusal is shown and ends the command.

    Args:
        server: which service.
        make: makes the calls.
        way_back: the command that goes on, for when the service is away.
    """
    from imgsvc.client.calls import Calls  # noqa: PLC0415 - aiohttp takes a while to load

    async def run() -> T:
        async with Calls(server, terminal.say) as calls:
            return await make(calls)

    try:
        return asyncio.run(run())
    except CallError as error:
        views.problem(terminal.err(), error)
        if way_back and error.passing:
            terminal.say(f"To come back: {way_back}")
    except BrokenPipeError:
        raise  # nobody reads on; Typer knows what to do
    except OSError as error:
        terminal.say(f"imgsvc: {error}")
    raise typer.Exit(FAILED)


def show(
    server: Server,
    make: Callable[[Calls], Coroutine[Any, Any, Json]],
    view: Callable[[Console, Json], None] | None,
) -> None:
    """Print what a call gives: as a view, or as JSON if there is none."""
    found = call(server, make)
    if view:
        view(terminal.out(), found)
    else:
        terminal.print_json(found)


def show_all(
    server: Server,
    entries: Callable[[Calls], AsyncIterator[Json]],
    line: Callable[[Console, Json | None], None] | None,
) -> None:
    """Print entries as they come: as lines of a table, or as JSON if there are none."""
    console = terminal.out()

    async def each(calls: Calls) -> None:
        none = True
        async for entry in entries(calls):
            if line is None:
                terminal.print_line(orjson.dumps(entry).decode())
                continue
            if none:
                line(console, None)
            line(console, entry)
            none = False

    call(server, each)


def accepted(waiting: Waiting, *, wait: bool) -> None:
    """Say that a request was accepted, or watch it to its end if anything of that is wanted."""
    if wait or waiting.wants_files:
        watch(waiting)
    terminal.say(f"Accepted. How far it is: {waiting.command('status')}")


def watch(waiting: Waiting) -> NoReturn:
    """Watch a request to its end and save what is wanted; ends the command."""
    try:
        code = call(
            waiting.server,
            lambda calls: waiting.done(calls, terminal.out(), terminal.err()),
            waiting.way_back,
        )
    except KeyboardInterrupt:
        terminal.say(f"\nThe request goes on without you. To come back: {waiting.way_back}")
        code = INTERRUPTED
    raise typer.Exit(code)
