"""``imgsvc serve``: the service itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

from imgsvc import app
from imgsvc.actors.supervisor import GaveUpError
from imgsvc.cli import process
from imgsvc.cli.process import CommandError
from imgsvc.runtime import logs, settings
from imgsvc.runtime.settings import Settings

_OVERDUE_S = 2.0


def serve(config: Path | None) -> None:
    """Run the HTTP server and the actors until SIGTERM; the process ends with them."""
    loaded = load(config)
    process.run(lambda stop: until_stopped(loaded, stop), loaded.http.shutdown_s + _OVERDUE_S)
    process.end(0)


async def until_stopped(loaded: Settings, stop: asyncio.Event) -> None:
    """Run the service in this process.

    Raises:
        CommandError: an actor keeps crashing.
    """
    try:
        await app.serve(loaded, stop)
    except GaveUpError as error:
        raise CommandError(str(error)) from error


def load(config: Path | None) -> Settings:
    """The settings. From here on there is a log; it names variables that only look like settings."""
    loaded = settings.load(config)
    logs.configure(loaded.log)
    for name in settings.overlooked():
        logs.get("settings").warning(
            "setting.not_read", name=name, remedy=f"write {settings.meant_by(name)}"
        )
    return loaded
