"""Arguments and options that commands share, and how their texts are read."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from yarl import URL


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

Options = Annotated[
    list[Any] | None,
    typer.Option(
        "--option", parser=_option, metavar="K=V", help="Such as format=webp or quality=80."
    ),
]
DEFAULT: Any = "http://127.0.0.1:3000"  # Typer parses it
