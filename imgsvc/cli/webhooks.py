"""``imgsvc webhooks``: announcements that were given up, to look at and to send again."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console
from rich.table import Table
from yarl import URL

from imgsvc import app
from imgsvc.ledger import FailedWebhook, Ledger
from imgsvc.runtime import settings

webhooks = typer.Typer(no_args_is_help=True, help="Webhooks that were given up.")
_MOST = 1000
_PAGE = 500
_AGO = re.compile(r"(\d{1,6})([smhd])")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _moment(text: str) -> datetime:
    """A point in time: ISO 8601 with a time zone, or how long ago, such as 24h."""
    if ago := _AGO.fullmatch(text):
        return datetime.now(UTC) - timedelta(seconds=int(ago[1]) * _UNITS_S[ago[2]])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise typer.BadParameter("write 90s, 30m, 24h or 7d, or a time such as 2026-01-31T15:00Z")
    return moment


Config = Annotated[Path | None, typer.Option("--config", help="Settings file.")]
Since = Annotated[
    datetime,
    typer.Option(
        "--since",
        parser=_moment,
        metavar="WHEN",
        help="Those given up since: 30m, 24h, 7d, or a time such as 2026-01-31T15:00Z.",
    ),
]
_EVER = "1970-01-01T00:00Z"


@webhooks.command()
def failed(since: Since = _EVER, config: Config = None) -> None:  # type: ignore[assignment]
    """List webhooks that were given up, oldest first."""

    async def run() -> list[FailedWebhook]:
        async with app.operator_parts(settings.load(config)) as (_, ledger):
            return await ledger.failed_webhooks(since, datetime.now(UTC), _MOST)

    table = Table("Request", "Given up", "Attempts", "Receiver", "Last error")
    found = uvloop.run(run())
    for one in found:
        # A query may hold a token.
        receiver = str(URL(one.url).with_query(None))
        at = one.failed_at.isoformat(timespec="seconds")
        table.add_row(one.request_id, at, str(one.attempts), receiver, one.error)
    Console().print(table if found else "There are none.")


@webhooks.command()
def replay(since: Since, config: Config = None) -> None:
    """Send all webhooks again that were given up, with the ids they had."""

    async def run() -> int:
        async with app.operator_parts(settings.load(config)) as (mailboxes, ledger):
            replayed = 0
            async for one in _given_up(ledger, since):
                replayed += await ledger.replay_webhook(one.request_id)
            await mailboxes.bell.ring()
            return replayed

    Console().print(f"{uvloop.run(run())} will be sent again.")


async def _given_up(ledger: Ledger, since: datetime) -> AsyncIterator[FailedWebhook]:
    """All of them until now: each has to be replayed before the next is asked for."""
    until = datetime.now(UTC)  # those that fail again meanwhile are not tried for ever
    while page := await ledger.failed_webhooks(since, until, _PAGE):
        for one in page:
            yield one
