"""Messages that cannot be done; each stays, with the reason, until an operator acts on it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis

from imgsvc.mailboxes.envelope import Envelope
from imgsvc.mailboxes.keys import DEAD, GROUP, IN_FLIGHT
from imgsvc.mailboxes.refusals import translated
from imgsvc.mailboxes.scripts import Scripts

_BATCH = 1000
_ENTRY_ID = re.compile(r"[0-9]{1,19}(-[0-9]{1,19})?")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be done."""

    entry_id: str
    mailbox: str
    key: str
    job: str
    reason: str


class DeadLetters:
    """The dead mailbox.

    Args:
        client: from ``connect``.
        scripts: over the same client.
    """

    def __init__(self, client: Redis, scripts: Scripts) -> None:
        self._client = client
        self._scripts = scripts

    async def bury(self, envelope: Envelope, reason: str) -> bool:
        """Move a message that cannot be done here; False if it was not ours any more."""
        answer = await self._scripts.run_grouped(
            "bury",
            (envelope.mailbox, DEAD, IN_FLIGHT),
            (GROUP, envelope.entry_id, envelope.key, envelope.job, reason),
        )
        return bool(answer)

    async def oldest(self, limit: int) -> list[DeadLetter]:
        """At most ``limit`` dead letters, oldest first."""
        return await self._range("-", "+", limit)

    async def find(self, entry_id: str) -> DeadLetter | None:
        """The dead letter of that id, if there is one; an operator may have typed anything."""
        if not _ENTRY_ID.fullmatch(entry_id):
            return None
        found = await self._range(entry_id, entry_id, 1)
        return found[0] if found else None

    async def _range(self, first: str, last: str, limit: int) -> list[DeadLetter]:
        with translated():
            entries = await self._client.xrange(DEAD, min=first, max=last, count=limit)
        return [
            DeadLetter(
                entry_id=found_id,
                mailbox=fields["from"],
                key=fields["k"],
                job=fields["m"],
                reason=fields["reason"],
            )
            for found_id, fields in cast("list[tuple[str, dict[str, str]]]", entries)
        ]

    async def drop(self, entry_id: str) -> bool:
        """Forget a dead letter; False if it is not there."""
        with translated():
            return bool(await self._client.xdel(DEAD, entry_id))

    async def forget(self, request_id: str) -> None:
        """Drop the dead letters of a request whose data are gone."""
        after = "-"
        while letters := await self._range(after, "+", _BATCH):
            after = f"({letters[-1].entry_id}"
            mine = [one.entry_id for one in letters if one.key.startswith(f"{request_id}/")]
            if mine:
                with translated():
                    await self._client.xdel(DEAD, *mine)
