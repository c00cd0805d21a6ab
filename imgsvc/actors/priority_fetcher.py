"""Priority fetcher: fetches the images that have priority, with a capacity of its own."""

from __future__ import annotations

from typing import ClassVar

from imgsvc.actors.fetcher import Fetcher
from imgsvc.actors.mailbox_actor import MailboxActor
from imgsvc.mailboxes.keys import FETCH_PRIORITY


class PriorityFetcher(Fetcher):
    """A Fetcher beside the other one, which goes on however slow the other's images are.

    Both share the limits of each origin. What the priority mailbox has no room for goes to the other.
    """

    name: ClassVar[str] = "priority_fetcher"

    def mailbox(self) -> str:
        """Shared: any replica may fetch."""
        return FETCH_PRIORITY

    def capacity(self) -> int:
        """As many as are fetched at once, so that none waits in hand."""
        return 0 if self.parts.spool.is_full else self.at_once()

    def at_once(self) -> int:
        """As many as its mailbox has room for."""
        return self.parts.settings.redis.priority_window

    def ahead(self) -> int:
        """As many as the other Fetcher can have, and its own: so the other never holds it up."""
        fetch = self.parts.settings.fetch
        return fetch.ahead + fetch.concurrency + self.at_once()

    async def run(self) -> None:
        """Fetch only; the other Fetcher shares origins with the other replicas."""
        await MailboxActor.run(self)
