"""The ``imgsvc`` command."""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn

import orjson
import typer
import uvloop
from pydantic import SecretStr
from rich.console import Console
from rich.markup import escape

from imgsvc import app
from imgsvc.actors.supervisor import GaveUpError
from imgsvc.cli import listen
from imgsvc.cli.dead import dead
from imgsvc.cli.keys import api_keys
from imgsvc.cli.webhooks import webhooks as failed_webhooks
from imgsvc.client import client
from imgsvc.domain.errors import ServiceError
from imgsvc.embedded.servers import EmbeddedError, EmbeddedServers, Endpoints
from imgsvc.http import openapi, routes
from imgsvc.runtime import logs, redaction, settings
from imgsvc.runtime.settings import Settings, SettingsError
from imgsvc.webhooks.signature import new_secret

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Batch image compression: URLs in, smaller images in your bucket out.",
)
cli.add_typer(api_keys, name="keys")
cli.add_typer(client)
cli.add_typer(dead, name="dead")
cli.add_typer(failed_webhooks, name="webhooks")
Config = Annotated[
    Path | None, typer.Option("--config", help="Settings file; config.toml if there is one.")
]
_OVERDUE_S = 2.0
_err = Console(stderr=True, highlight=False)


def main() -> None:
    """Run the command; what the user can mend is one line, not a traceback."""
    try:
        cli()
    except (SettingsError, EmbeddedError, GaveUpError) as error:
        _err.print(f"[red]imgsvc:[/red] {escape(str(error))}", markup=True, soft_wrap=True)
        _leave(2 if isinstance(error, SettingsError) else 1)
    except (OSError, ServiceError) as error:
        told = error.remedy if isinstance(error, ServiceError) and error.remedy else error
        _err.print(f"imgsvc: {redaction.of_library(str(told))}", markup=False, soft_wrap=True)
        _leave(1)


@cli.command()
def serve(config: Config = None) -> None:
    """Run the service: HTTP server and actors, until SIGTERM."""
    loaded = settings.load(config)
    logs.configure(loaded.log)
    _point_out_slips()
    _run(lambda stop: app.serve(loaded, stop), loaded.http.shutdown_s + _OVERDUE_S)
    _leave(0)


@cli.command()
def dev(config: Config = None) -> None:
    """Run the service with embedded servers, for development only."""
    loaded = settings.load(config)
    logs.configure(loaded.log)
    _point_out_slips()
    _run(lambda stop: _dev(loaded, stop))


@cli.command()
def demo() -> None:
    """Send real photographs through the whole service and check what comes out."""
    from imgsvc import demo  # noqa: PLC0415 - its PIL is no business of the service's process

    raise typer.Exit(demo.main(Path("demo-output")))


@cli.command(name="listen")
def listen_for_webhooks(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any free one.")] = 9000,
    secret: Annotated[
        str | None,
        typer.Option(envvar="WEBHOOK_SECRET", help="whsec_...; else [webhook] secrets are used."),
    ] = None,
    config: Config = None,
) -> None:
    """Receive webhooks on this machine, check and show each."""
    secrets = [s.get_secret_value() for s in settings.load(config).webhook.secrets]
    if secret:
        try:
            secrets = [settings.check_webhook_secret(secret)]
        except ValueError as error:
            raise SettingsError(f"--secret: {error}") from None

    def show(text: str) -> None:
        print(text, flush=True)  # noqa: T201

    _run(lambda stop: listen.listen(port, secrets, show, stop))


@cli.command(name="config")
def show_config(config: Config = None) -> None:
    """Print the settings in force, secrets masked."""
    print(settings.show(settings.load(config)))  # noqa: T201


@cli.command(name="openapi")
def show_openapi() -> None:
    """Print the OpenAPI document."""
    text = orjson.dumps(openapi.document(routes.ROUTES), option=orjson.OPT_INDENT_2)
    print(text.decode())  # noqa: T201


def _point_out_slips() -> None:
    for name in settings.overlooked():
        logs.get("settings").warning(
            "setting.not_read", name=name, remedy=f"write {settings.meant_by(name)}"
        )


def _run(
    work: Callable[[asyncio.Event], Coroutine[Any, Any, None]], leaves_in_s: float | None = None
) -> None:
    """Run ``work`` on uvloop; SIGTERM and SIGINT set the event that it is given.

    Args:
        work: what to run.
        leaves_in_s: after so long it is cut off, whatever it, the loop or its threads wait for.
    """

    async def main() -> None:
        stop = asyncio.Event()

        def leave() -> None:
            if leaves_in_s is not None and not stop.is_set():
                overdue = threading.Timer(leaves_in_s, _cut_off)
                overdue.daemon = True
                overdue.start()
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, leave)
        await work(stop)

    uvloop.run(main())


def _cut_off() -> None:
    """End the process, which should have ended by itself: an orchestrator would kill it soon."""
    logs.get("cli").error("shutdown.overdue")
    os._exit(1)


def _leave(code: int) -> NoReturn:
    """End the process, whatever its threads wait for.

    The interpreter would wait for them, and they for a MongoDB or a bucket that hangs, longer than
    an orchestrator does. What they do is somebody else's work by now.
    """
    atexit._run_exitfuncs()  # noqa: SLF001 - os._exit leaves that out
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def _dev(loaded: Settings, stop: asyncio.Event) -> None:
    async with EmbeddedServers(loaded.dev.data_dir) as servers:
        developed, secret = for_development(loaded, servers.endpoints)
        _err.print(
            "For development only: embedded Valkey, SecantusDB and fake-gcs-server, data in "
            f"{loaded.dev.data_dir}/; addresses in {', '.join(map(str, developed.net.allow))} "
            "may be fetched.",
            style="yellow",
            markup=False,
        )
        if secret:
            _err.print(f"Webhooks are signed with {secret}", markup=False, soft_wrap=True)
        _err.print(
            "For other commands: export "
            f"MONGO_URI={servers.endpoints.mongo_uri}{developed.mongo.database} "
            f"REDIS_PORT={servers.endpoints.redis_port}",
            markup=False,
            soft_wrap=True,
        )
        _err.print(f"http://127.0.0.1:{loaded.http.port}  API: /docs  Stop: Ctrl-C")
        await app.serve(developed, stop)


def for_development(loaded: Settings, endpoints: Endpoints) -> tuple[Settings, str | None]:
    """The settings pointed at embedded servers, and the webhook secret if one was made up.

    What the environment or file says otherwise stays, but for where the servers are.
    """
    secret = None
    webhook = loaded.webhook
    if not webhook.secrets:
        secret = new_secret()
        webhook = webhook.model_copy(update={"secrets": (SecretStr(secret),)})
    net = loaded.net
    if not net.allow:
        net = settings.Net.model_validate({**net.model_dump(), "allow": ("127.0.0.0/8", "::1/128")})
    # The client library looks here too.
    os.environ["STORAGE_EMULATOR_HOST"] = endpoints.gcs_url
    changed = loaded.model_copy(
        update={
            "redis": loaded.redis.model_copy(
                update={
                    "url": None,
                    "host": endpoints.redis_host,
                    "port": endpoints.redis_port,
                    "username": None,
                    "password": None,
                    "tls": False,
                }
            ),
            "mongo": loaded.mongo.model_copy(update={"uri": SecretStr(endpoints.mongo_uri)}),
            "gcs": loaded.gcs.model_copy(
                update={"emulator_host": endpoints.gcs_url, "signed_urls": False}
            ),
            "webhook": webhook,
            "net": net,
        }
    )
    return changed, secret


if __name__ == "__main__":
    main()
