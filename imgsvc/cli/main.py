"""The ``imgsvc`` command: what there is, and how a command that fails says so.

Each command loads what it needs when it runs. The whole service takes two seconds of CPU to load,
which would be most of what ``imgsvc keys list`` costs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from imgsvc.cli import process
from imgsvc.cli.dead import dead
from imgsvc.cli.keys import api_keys
from imgsvc.cli.options import Config
from imgsvc.cli.process import CommandError
from imgsvc.cli.webhooks import webhooks
from imgsvc.client import client
from imgsvc.domain.errors import ServiceError
from imgsvc.embedded.errors import EmbeddedError
from imgsvc.runtime import redaction, settings
from imgsvc.runtime.settings import SettingsError

# ruff: noqa: PLC0415 - see above

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Batch image compression: URLs in, smaller images in your bucket out.",
)
cli.add_typer(api_keys, name="keys")
cli.add_typer(client)
cli.add_typer(dead, name="dead")
cli.add_typer(webhooks, name="webhooks")


def main() -> None:
    """Run the command; what the user can mend is one line, not a traceback."""
    err = Console(stderr=True, highlight=False)
    try:
        cli()
    except (SettingsError, EmbeddedError, CommandError) as error:
        err.print(f"[red]imgsvc:[/red] {escape(str(error))}", markup=True, soft_wrap=True)
        process.end(2 if isinstance(error, SettingsError) else 1)
    except (OSError, ServiceError) as error:
        remedy = error.remedy if isinstance(error, ServiceError) else None
        text = redaction.of_library(str(remedy or error))
        err.print(f"imgsvc: {text}", markup=False, soft_wrap=True)
        process.end(1)


@cli.command()
def serve(config: Config = None) -> None:
    """Run the service: HTTP server and actors, until SIGTERM."""
    from imgsvc.cli.serve import serve

    serve(config)


@cli.command()
def dev(config: Config = None) -> None:
    """Run the service with embedded servers, for development only."""
    from imgsvc.cli.dev import dev

    dev(config)


@cli.command()
def demo() -> None:
    """Send real photographs through the whole service and check what comes out."""
    from imgsvc import demo

    raise typer.Exit(demo.main(Path("demo-output")))


@cli.command()
def listen(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any free one.")] = 9000,
    secret: Annotated[
        str | None,
        typer.Option(envvar="WEBHOOK_SECRET", help="whsec_...; else [webhook] secrets are used."),
    ] = None,
    config: Config = None,
) -> None:
    """Receive webhooks on this machine, check and show each."""
    from imgsvc.cli.listen import listen

    listen(port, secret, config)


@cli.command(name="config")
def show_config(
    config: Config = None,
    *,
    reference: Annotated[bool, typer.Option("--reference", hidden=True)] = False,
) -> None:
    """Print the settings in force, secrets masked."""
    if reference:
        from imgsvc.runtime.settings.reference import reference as document

        print(document(), end="")  # noqa: T201
        return
    print(settings.show(settings.load(config)))  # noqa: T201


@cli.command(name="openapi")
def show_openapi() -> None:
    """Print the OpenAPI document."""
    from imgsvc.cli import openapi

    print(openapi.text())  # noqa: T201


if __name__ == "__main__":
    main()
