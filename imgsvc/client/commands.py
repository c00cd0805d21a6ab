"""The commands, as Typer reads them."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Annotated

import typer
from yarl import URL

from imgsvc.client import running, sources, terminal, views
from imgsvc.client.options import (
    DEFAULT,
    AsJson,
    At,
    Download,
    Id,
    Key,
    Options,
    Out,
    Wait,
)
from imgsvc.client.server import Json, Server
from imgsvc.client.sources import SourceError
from imgsvc.client.waiting import Waiting

_PANEL = "For clients"

client = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


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
    option: Options = None,
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
        request_id = running.call(at, lambda calls: calls.submit(upload, once))
    except KeyboardInterrupt:
        terminal.say(
            "\nInterrupted before the service answered; `imgsvc requests` shows what it has."
        )
        raise typer.Exit(running.INTERRUPTED) from None
    terminal.print_line(request_id)
    running.accepted(Waiting(at, request_id, out, download), wait=wait)


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
        running.watch(Waiting(at, request_id, out, download))
    running.show(at, lambda calls: calls.status(request_id), None if as_json else views.status)


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
    running.show_all(
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
    running.show_all(
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
    running.call(at, lambda calls: calls.retry(request_id, wanted))
    running.accepted(Waiting(at, request_id, out, download), wait=wait)


@client.command(rich_help_panel=_PANEL)
def cancel(request_id: Id, *, server: At = DEFAULT, key: Key = None) -> None:
    """Stop a request; what is done stays."""
    found = running.call(_at(server, key), lambda calls: calls.cancel(request_id))
    terminal.say(f"Accepted; its status is {found['status']}.")


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
    running.call(_at(server, key), lambda calls: calls.erase(request_id))
    terminal.say("Accepted; it is being erased.")


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
        running.call(at, lambda calls: calls.download(request_id, out, **query))
        return
    running.show(at, lambda calls: calls.report(request_id), None if as_json else views.report)


def _at(server: URL, key: str | None) -> Server:
    return Server(server, key, implied=server == URL(os.environ.get("IMGSVC_SERVER") or DEFAULT))
