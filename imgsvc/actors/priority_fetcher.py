"""Priority fetcher: fetches images that somebody waits for, in places that are theirs alone."""

from __future__ import annotations

from typing import ClassVar

from imgsvc.actors.fetcher import Fetcher
from imgsvc.actors.mailbox_actor import MailboxActor
from imgsvc.mailboxes.keys import FETCH_PRIORITY


class PriorityFetcher(Fetcher):
    """A Fetcher beside the other: however slow what that one fetches, these go on.

    It shares origins with it, and their limits. What its mailbox has no room for is the other's.
    """

    name: ClassVar[str] = "priority_fetcher"

    def mailbox(self) -> str:
        """Shared: any replica may fetch."""
        return FETCH_PRIORITY

    def capacity(self) -> int:
        """None has to wait in hand."""
        return 0 if self.parts.spool.is_full else self.at_once()

    def at_once(self) -> int:
        """As many as its mailbox has room for."""
        return self.parts.settings.redis.priority_window

    def ahead(self) -> int:
        """As many as there are if the other Fetcher is as far ahead as it can be, and its own."""
        fetch = self.parts.settings.fetch
        return fetch.ahead + fetch.concurrency + self.at_once()

    async def run(self) -> None:
        """Fetch; the other Fetcher shares origins with the other replicas."""
        await MailboxActor.run(self)
