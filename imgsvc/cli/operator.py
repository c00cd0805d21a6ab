"""The mailboxes and the ledger alone, for commands that run beside the service."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import uvloop

from imgsvc.runtime.failpoints import Failpoints
from imgsvc.runtime.replica import new_replica_id
from imgsvc.runtime.settings import Settings

if TYPE_CHECKING:
    from imgsvc.ledger import Ledger
    from imgsvc.mailboxes.mailboxes import Mailboxes

T = TypeVar("T")


class Parts(NamedTuple):
    """What a command works with."""

    mailboxes: Mailboxes
    ledger: Ledger


def run(loaded: Settings, work: Callable[[Parts], Awaitable[T]]) -> T:
    """What ``work`` returns.

    Args:
        loaded: the settings.
        work: is given the mailboxes and the ledger.

    Raises:
        SettingsError: the ledger is newer than this code.
        ServiceError: UNAVAILABLE; MongoDB cannot be asked.
    """

    async def main() -> T:
        async with _open(loaded) as parts:
            return await work(parts)

    return uvloop.run(main())


@contextlib.asynccontextmanager
async def _open(loaded: Settings) -> AsyncIterator[Parts]:
    # The drivers take most of a second to load; help and complaints about options need none.
    from imgsvc.ledger import Ledger  # noqa: PLC0415 - see above
    from imgsvc.mailboxes.connection import connect  # noqa: PLC0415 - see above
    from imgsvc.mailboxes.mailboxes import Mailboxes  # noqa: PLC0415 - see above

    failpoints = Failpoints(loaded.dev.failpoint)
    client = connect(loaded.redis)
    ledger = Ledger(loaded.mongo, failpoints)
    try:
        await ledger.check()
        yield Parts(Mailboxes(client, loaded.redis, new_replica_id(), failpoints), ledger)
    finally:
        await client.aclose()
        ledger.close()
