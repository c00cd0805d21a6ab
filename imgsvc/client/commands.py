"""The commands, as Typer reads them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import orjson
import typer
from rich.console import Console
from yarl import URL

from imgsvc.client import sources, views
from imgsvc.client.server import CallError, Json, Server
from imgsvc.client.sources import SourceError
from imgsvc.client.waiting import FAILED, Waiting

if TYPE_CHECKING:
    from imgsvc.client.calls import Calls

T = TypeVar("T")

_INTERRUPTED = 130  # as shells report Ctrl-C
_NO_TERMINAL = 1000  # columns; what reads a pipe wants whole lines
_PANEL = "For clients"

client = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _server(text: str) -> URL:
    with contextlib.suppress(ValueError):
        url = URL(text)
        if url.scheme in ("http", "https") and url.host:
            return url
    raise typer.BadParameter(f"{text!r} is no http(s) URL")


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise typer.BadParameter(f"{text!r} is not like quality=80")
    try:
        return name, orjson.loads(value)
    except orjson.JSONDecodeError:
        return name, value


At = Annotated[
    URL,
    typer.Option(
        "--server", envvar="IMGSVC_SERVER", parser=_server, metavar="URL", help="Where imgsvc is."
    ),
]
Key = Annotated[
    str | None, typer.Option("--key", envvar="IMGSVC_KEY", metavar="KEY", help="Your API key.")
]
Id = Annotated[str, typer.Argument(metavar="ID", help="Of a request.")]
Wait = Annotated[bool, typer.Option("--wait", help="Watch it until it has ended.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE.csv", help="Wait, then save the full report.")
]
Download = Annotated[
    Path | None,
    typer.Option(
        "--download",
        metavar="DIR",
        help="Wait, then save the results as DIR/<serial number>/<index>.<ext>.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as the service sends it.")]

DEFAULT: Any = "http://127.0.0.1:3000"  # Typer parses it


@client.command(rich_help_panel=_PANEL)
def submit(
    source: Annotated[
        list[str], typer.Argument(metavar="FILE.csv|FILE.json|URL...", show_default=False)
    ],
    *,
    server: At = DEFAULT,
    key: Key = None,
    webhook: Annotated[
        str | None, typer.Option(metavar="URL", help="Told when the request has ended.")
    ] = None,
    option: Annotated[
        list[Any] | None,
        typer.Option(parser=_option, metavar="K=V", help="Such as format=webp or quality=80."),
    ] = None,
    wait: Wait = False,
    out: Out = None,
    download: Download = None,
) -> None:
    """Submit products, or URLs, each as a product of its own.

    Exits with 0 if all images worked out, 3 if some did, 1 if none did or something else failed.
    """
    try:
        upload = sources.read(source, webhook, dict(option or []))
    except SourceError as error:
        raise typer.BadParameter(str(error)) from None
    at = _at(server, key)
    once = str(uuid.uuid4())
    try:
        request_id = _asked(at, lambda calls: calls.submit(upload, once))
    except KeyboardInterrupt:
        _say("\nInterrupted before the service answered; `imgsvc requests` shows what it has.")
        raise typer.Exit(_INTERRUPTED) from None
    _print(request_id)
    waiting = Waiting(at, request_id, out, download)
    if wait or out or download:
        _waited(waiting)
    _say(f"Accepted. How far it is: {waiting.command('status')}")


@client.command(rich_help_panel=_PANEL)
def status(
    request_id: Id,
    *,
    server: At = DEFAULT,
    key: Key = None,
    wait: Wait = False,
    out: Out = None,
    download: Download = None,
    as_json: AsJson = False,
) -> None:
    """Show how far a request is, or come back to watch it."""
    at = _at(server, key)
    if wait or out or download:
        _waited(Waiting(at, request_id, out, download))
    found = _asked(at, lambda calls: calls.status(request_id))
    if as_json:
        _print_json(found)
    else:
        views.status(_console(), found)


@client.command(rich_help_panel=_PANEL)
def images(
    request_id: Id,
    *,
    server: At = DEFAULT,
    key: Key = None,
    status: Annotated[
        str | None, typer.Option(metavar="STATUS", help="Only those, such as FAILED.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the images of a request, in input order."""
    query = {"status": status.upper()} if status else {}
    _list(
        _at(server, key),
        lambda calls: calls.images(request_id, **query),
        None if as_json else views.image_line,
    )


@client.command(rich_help_panel=_PANEL)
def requests(
    *,
    server: At = DEFAULT,
    key: Key = None,
    status: Annotated[
        str | None, typer.Option(metavar="STATUS", help="Only those, such as PARTIAL.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List your requests, newest first."""
    query = {"status": status.upper()} if status else {}
    _list(
        _at(server, key),
        lambda calls: calls.requests(limit, **query),
        None if as_json else views.request_line,
    )


@client.command(rich_help_panel=_PANEL)
def retry(
    request_id: Id,
    *,
    server: At = DEFAULT,
    key: Key = None,
    code: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Only what failed with it.")
    ] = None,
    product: Annotated[
        list[str] | None,
        typer.Option(metavar="SERIAL", help="Only of products with this serial number."),
    ] = None,
    wait: Wait = False,
    out: Out = None,
    download: Download = None,
) -> None:
    """Have the failed images of a request worked on again."""
    at = _at(server, key)
    wanted: Json = {"codes": [each.upper() for each in code]} if code else {}
    if product:
        wanted["products"] = product
    _asked(at, lambda calls: calls.retry(request_id, wanted))
    waiting = Waiting(at, request_id, out, download)
    if wait or out or download:
        _waited(waiting)
    _say(f"Accepted. How far it is: {waiting.command('status')}")


@client.command(rich_help_panel=_PANEL)
def cancel(request_id: Id, *, server: At = DEFAULT, key: Key = None) -> None:
    """Stop a request; what is done stays."""
    found = _asked(_at(server, key), lambda calls: calls.cancel(request_id))
    _say(f"Accepted; its status is {found['status']}.")


@client.command(rich_help_panel=_PANEL)
def erase(
    request_id: Id,
    *,
    server: At = DEFAULT,
    key: Key = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a request with all its results."""
    if not yes:
        typer.confirm(f"Delete {request_id} with all its results?", abort=True, err=True)
    _asked(_at(server, key), lambda calls: calls.erase(request_id))
    _say("Accepted; it is being erased.")


@client.command(rich_help_panel=_PANEL)
def report(
    request_id: Id,
    *,
    server: At = DEFAULT,
    key: Key = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Save the full report as CSV instead.")
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="With --out: only what failed, to be submitted again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a request saved, where its images came from and how long they took."""
    if failed and not out:
        raise typer.BadParameter("--failed goes with --out FILE.csv.")
    at = _at(server, key)
    if out:
        query = {"only": "failed"} if failed else {"columns": "full"}
        _asked(at, lambda calls: calls.download(request_id, out, **query))
        return
    found = _asked(at, lambda calls: calls.report(request_id))
    if as_json:
        _print_json(found)
    else:
        views.report(_console(), found)


def _at(server: URL, key: str | None) -> Server:
    return Server(server, key, implied=server == URL(os.environ.get("IMGSVC_SERVER") or DEFAULT))


def _asked(
    server: Server, ask: Callable[[Calls], Coroutine[Any, Any, T]], way_back: str | None = None
) -> T:
    """What a call gives; a refusal is shown and ends the command.

    Args:
        server: which service.
        ask: makes the calls.
        way_back: the command that goes on, for when the service is away.
    """
    from imgsvc.client.calls import Calls  # noqa: PLC0415 - aiohttp takes a while to load

    async def run() -> T:
        async with Calls(server, _say) as calls:
            return await ask(calls)

    try:
        return asyncio.run(run())
    except CallError as error:
        views.problem(_err(), error)
        if way_back and error.passing:
            _say(f"To come back: {way_back}")
    except BrokenPipeError:
        raise  # nobody reads on; Typer knows what to do
    except OSError as error:
        _say(f"imgsvc: {error}")
    raise typer.Exit(FAILED)


def _list(
    server: Server,
    entries: Callable[[Calls], AsyncIterator[Json]],
    line: Callable[[Console, Json | None], None] | None,
) -> None:
    """Print entries as they come, as lines of a table or as JSON."""
    console = _console()

    async def show(calls: Calls) -> None:
        none = True
        async for entry in entries(calls):
            if line is None:
                _print(orjson.dumps(entry).decode())
                continue
            if none:
                line(console, None)
            line(console, entry)
            none = False

    _asked(server, show)


def _waited(waiting: Waiting) -> NoReturn:
    """Watch a request to its end and save what is wanted; ends the command."""
    try:
        code = _asked(
            waiting.server, lambda calls: waiting.done(calls, _console(), _err()), waiting.way_back
        )
    except KeyboardInterrupt:
        _say(f"\nThe request goes on without you. To come back: {waiting.way_back}")
        code = _INTERRUPTED
    raise typer.Exit(code)


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_NO_TERMINAL)


def _err() -> Console:
    return Console(stderr=True, highlight=False)


def _say(line: str) -> None:
    _err().print(line, markup=False, soft_wrap=True)


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def _print_json(found: Json) -> None:
    _print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
