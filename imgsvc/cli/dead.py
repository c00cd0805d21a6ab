"""``imgsvc dead``: what could not be done, to look at, to try again or to forget.

Two kinds: messages that failed for reasons of ours, by the id of their entry in Redis, and erasures
that the bucket refuses, by the id of their request.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
import typer
import uvloop
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from imgsvc import app
from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.messages import ImageJob, WebhookJob
from imgsvc.ledger import Document, Ledger, RefusedErasure, iso
from imgsvc.mailboxes.dead_letters import DeadLetter
from imgsvc.mailboxes.mailboxes import Mailboxes
from imgsvc.runtime import settings

dead = typer.Typer(no_args_is_help=True, help="What could not be done, with its reason.")
Config = Annotated[Path | None, typer.Option("--config", help="Settings file.")]
Entry = Annotated[str, typer.Argument(help="An id as `imgsvc dead list` shows it.")]
_MOST = 1000


@dead.command(name="list")
def list_all(config: Config = None) -> None:
    """List dead letters, oldest first, and erasures that the bucket refuses."""

    async def run() -> tuple[list[DeadLetter], list[RefusedErasure]]:
        async with app.operator_parts(settings.load(config)) as (mailboxes, ledger):
            return await mailboxes.dead_letters.oldest(_MOST), await ledger.refused_erasures(_MOST)

    table = Table(Column("ID", no_wrap=True), "What", "Reason")
    letters, erasures = uvloop.run(run())
    for letter in letters:
        table.add_row(letter.entry_id, letter.key, Text(letter.reason))
    for erasure in erasures:
        table.add_row(erasure.request_id, "erasure", Text(_told(erasure)))
    Console().print(table if letters or erasures else "There are none.")


@dead.command()
def show(entry: Entry, config: Config = None) -> None:
    """Show one dead letter as JSON."""

    async def run() -> Document:
        async with app.operator_parts(settings.load(config)) as (mailboxes, ledger):
            if erasure := await _refused(ledger, entry):
                return {
                    "id": erasure.request_id,
                    "reason": erasure.reason,
                    "tries": erasure.tries,
                    "nextTryAt": iso(erasure.again_at),
                }
            letter = await _find(mailboxes, entry)
            return {
                "id": letter.entry_id,
                "mailbox": letter.mailbox,
                "reason": letter.reason,
                "job": orjson.loads(letter.job),
            }

    body = uvloop.run(run())
    print(orjson.dumps(body, option=orjson.OPT_INDENT_2).decode())  # noqa: T201


@dead.command()
def replay(entry: Entry, config: Config = None) -> None:
    """Have one dead letter's work done again."""

    async def run() -> None:
        async with app.operator_parts(settings.load(config)) as (mailboxes, ledger):
            if await ledger.erase_at_once(entry):
                return
            letter = await _find(mailboxes, entry)
            if not await _again(ledger, letter):
                raise ServiceError(
                    ErrorCode.NOT_FINISHED,
                    "Its request is gone, or in a state in which this cannot be done again.",
                )
            await mailboxes.dead_letters.drop(letter.entry_id)
            await mailboxes.bell.ring()

    uvloop.run(run())


@dead.command()
def drop(entry: Entry, config: Config = None) -> None:
    """Forget one dead letter; what the ledger says of its work stays."""

    async def run() -> None:
        async with app.operator_parts(settings.load(config)) as (mailboxes, ledger):
            if await _refused(ledger, entry):
                raise ServiceError(
                    ErrorCode.NOT_FINISHED,
                    "Somebody wants this erased: lift what holds its objects, then replay it.",
                )
            await _find(mailboxes, entry)
            await mailboxes.dead_letters.drop(entry)

    uvloop.run(run())


async def _refused(ledger: Ledger, entry: str) -> RefusedErasure | None:
    found = await ledger.refused_erasures(1, entry)
    return found[0] if found else None


def _told(erasure: RefusedErasure) -> str:
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
        return await ledger.ask_to_reopen(image.request_id, image.product, image.index)
    return await ledger.replay_webhook(WebhookJob.model_validate_json(letter.job).request_id)
