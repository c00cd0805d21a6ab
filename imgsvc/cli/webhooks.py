"""``imgsvc webhooks``: webhooks that were given up, to look at and to send again."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from yarl import URL

from imgsvc.cli import operator
from imgsvc.cli.operator import Parts
from imgsvc.cli.options import Config
from imgsvc.runtime import settings

if TYPE_CHECKING:
    from imgsvc.ledger import FailedWebhook, Ledger

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
    found = operator.run(
        settings.load(config),
        lambda parts: parts.ledger.delivery_log.failed(since, datetime.now(UTC), _MOST),
    )
    table = Table("Request", "Given up", "Attempts", "Receiver", "Last error")
    for one in found:
        # A query may hold a token.
        receiver = str(URL(one.url).with_query(None))
        at = one.failed_at.isoformat(timespec="seconds")
        table.add_row(one.request_id, at, str(one.attempts), receiver, one.error)
    Console().print(table if found else "There are none.")


@webhooks.command()
def replay(since: Since, config: Config = None) -> None:
    """Send all webhooks again that were given up, with the ids they had."""
    replayed = operator.run(settings.load(config), lambda parts: _replay(parts, since))
    Console().print(f"{replayed} will be sent again.")


async def _replay(parts: Parts, since: datetime) -> int:
    replayed = 0
    async for one in _given_up(parts.ledger, since):
        replayed += await parts.ledger.deliveries.replay(one.request_id)
    await parts.mailboxes.bell.ring()
    return replayed


async def _given_up(ledger: Ledger, since: datetime) -> AsyncIterator[FailedWebhook]:
    """All of them until now: each has to be replayed before the next is asked for."""
    until = datetime.now(UTC)  # those that fail again meanwhile are not tried for ever
    while page := await ledger.delivery_log.failed(since, until, _PAGE):
        for one in page:
            yield one
