"""``imgsvc dev``: the service with embedded servers, for development only."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console

from imgsvc.cli import process
from imgsvc.cli.serve import load, until_stopped
from imgsvc.embedded.servers import EmbeddedServers, Endpoints
from imgsvc.runtime.settings import Net, Settings
from imgsvc.webhooks.signature import new_secret


def dev(config: Path | None) -> None:
    """Run the servers and the service until Ctrl-C."""
    loaded = load(config)
    process.run(lambda stop: _serve(loaded, stop))


async def _serve(loaded: Settings, stop: asyncio.Event) -> None:
    async with EmbeddedServers(loaded.dev.data_dir) as servers:
        developed, secret = for_development(loaded, servers.endpoints)
        _introduce(developed, servers.endpoints, secret)
        await until_stopped(developed, stop)


def _introduce(developed: Settings, servers: Endpoints, secret: str | None) -> None:
    """Say on standard error what runs, and what a developer needs for other commands."""
    err = Console(stderr=True, highlight=False)
    err.print(
        "For development only: embedded Valkey, SecantusDB and fake-gcs-server, data in "
        f"{developed.dev.data_dir}/; addresses in {', '.join(map(str, developed.net.allow))} "
        "may be fetched.",
        style="yellow",
        markup=False,
    )
    if secret:
        err.print(f"Webhooks are signed with {secret}", markup=False, soft_wrap=True)
    err.print(
        "For other commands: export "
        f"MONGO_URI={servers.mongo_uri}{developed.mongo.database} "
        f"REDIS_PORT={servers.redis_port}",
        markup=False,
        soft_wrap=True,
    )
    err.print(f"http://127.0.0.1:{developed.http.port}  API: /docs  Stop: Ctrl-C")


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
        net = Net.model_validate({**net.model_dump(), "allow": ("127.0.0.0/8", "::1/128")})
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
