"""``imgsvc dead``: what could not be done, to look at, to try again or to forget.

Two kinds: messages that failed for reasons of ours, by the id of their entry in Redis, and erasures
that the bucket refuses, by the id of their request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from imgsvc.cli import operator
from imgsvc.cli.operator import Parts
from imgsvc.cli.options import Config
from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.messages import ImageJob, WebhookJob
from imgsvc.runtime import settings

if TYPE_CHECKING:
    from imgsvc.ledger import Ledger, RefusedErasure
    from imgsvc.mailboxes.dead_letters import DeadLetter
    from imgsvc.mailboxes.mailboxes import Mailboxes

dead = typer.Typer(no_args_is_help=True, help="What could not be done, with its reason.")
Entry = Annotated[str, typer.Argument(help="An id as `imgsvc dead list` shows it.")]
_MOST = 1000


@dead.command(name="list")
def list_all(config: Config = None) -> None:
    """List dead letters, oldest first, and erasures that the bucket refuses."""
    letters, erasures = operator.run(settings.load(config), _all)
    table = Table(Column("ID", no_wrap=True), "What", "Reason")
    for letter in letters:
        table.add_row(letter.entry_id, letter.key, Text(letter.reason))
    for erasure in erasures:
        table.add_row(erasure.request_id, "erasure", Text(_reason(erasure)))
    Console().print(table if letters or erasures else "There are none.")


@dead.command()
def show(entry: Entry, config: Config = None) -> None:
    """Show one dead letter as JSON."""
    body = operator.run(settings.load(config), lambda parts: _show(parts, entry))
    print(orjson.dumps(body, option=orjson.OPT_INDENT_2).decode())  # noqa: T201


@dead.command()
def replay(entry: Entry, config: Config = None) -> None:
    """Have one dead letter's work done again."""
    operator.run(settings.load(config), lambda parts: _replay(parts, entry))


@dead.command()
def drop(entry: Entry, config: Config = None) -> None:
    """Forget one dead letter; what the ledger says of its work stays."""
    operator.run(settings.load(config), lambda parts: _drop(parts, entry))


async def _all(parts: Parts) -> tuple[list[DeadLetter], list[RefusedErasure]]:
    letters = await parts.mailboxes.dead_letters.oldest(_MOST)
    return letters, await parts.ledger.refusals.find(_MOST)


async def _show(parts: Parts, entry: str) -> dict[str, Any]:
    from imgsvc.ledger import iso  # noqa: PLC0415 - loaded by now

    if erasure := await _refused(parts.ledger, entry):
        return {
            "id": erasure.request_id,
            "reason": erasure.reason,
            "tries": erasure.tries,
            "nextTryAt": iso(erasure.again_at),
        }
    letter = await _find(parts.mailboxes, entry)
    return {
        "id": letter.entry_id,
        "mailbox": letter.mailbox,
        "reason": letter.reason,
        "job": orjson.loads(letter.job),
    }


async def _replay(parts: Parts, entry: str) -> None:
    if await parts.ledger.refusals.retry_now(entry):
        return
    letter = await _find(parts.mailboxes, entry)
    if not await _again(parts.ledger, letter):
        raise ServiceError(
            ErrorCode.NOT_FINISHED,
            "Its request is gone, or in a state in which this cannot be done again.",
        )
    await parts.mailboxes.dead_letters.drop(letter.entry_id)
    await parts.mailboxes.bell.ring()


async def _drop(parts: Parts, entry: str) -> None:
    if await _refused(parts.ledger, entry):
        raise ServiceError(
            ErrorCode.NOT_FINISHED,
            "Somebody wants this erased: lift what holds its objects, then replay it.",
        )
    letter = await _find(parts.mailboxes, entry)
    await parts.mailboxes.dead_letters.drop(letter.entry_id)


async def _refused(ledger: Ledger, entry: str) -> RefusedErasure | None:
    found = await ledger.refusals.find(1, entry)
    return found[0] if found else None


def _reason(erasure: RefusedErasure) -> str:
    again = erasure.again_at.isoformat(timespec="seconds").replace("+00:00", "Z")
    return f"{erasure.reason} (tried {erasure.tries} times, again at {again})"


async def _find(mailboxes: Mailboxes, entry: str) -> DeadLetter:
    found = await mailboxes.dead_letters.find(entry)
    if not found:
        raise ServiceError(ErrorCode.NOT_FOUND, f"There is no dead letter {entry}.")
    return found


async def _again(ledger: Ledger, letter: DeadLetter) -> bool:
    if "index" in orjson.loads(letter.job):
        image = ImageJob.model_validate_json(letter.job)
        return await ledger.commands.retry_image(image.request_id, image.product, image.index)
    return await ledger.deliveries.replay(WebhookJob.model_validate_json(letter.job).request_id)
