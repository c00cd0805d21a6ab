"""All that the service does with Redis, put together over one client; each part has its own name."""

from __future__ import annotations

from redis.asyncio import Redis

from imgsvc.mailboxes.bell import Bell
from imgsvc.mailboxes.dead_letters import DeadLetters
from imgsvc.mailboxes.delayed import Delayed
from imgsvc.mailboxes.inbox import Inbox
from imgsvc.mailboxes.keys import SHARED
from imgsvc.mailboxes.lead import Lead
from imgsvc.mailboxes.limits import Limits
from imgsvc.mailboxes.readers import Readers
from imgsvc.mailboxes.replicas import Replicas
from imgsvc.mailboxes.scripts import Scripts
from imgsvc.mailboxes.server import Server
from imgsvc.mailboxes.streams import Streams
from imgsvc.runtime.failpoints import NO_FAILPOINTS, Failpoints
from imgsvc.runtime.settings import Redis as RedisSettings


class Mailboxes:
    """The parts.

    Args:
        client: from ``connect``.
        settings: window, lease and heartbeat.
        replica: the id of this process; it owns the lanes of that name.
        failpoints: for tests of faults.
    """

    def __init__(
        self,
        client: Redis,
        settings: RedisSettings,
        replica: str,
        failpoints: Failpoints = NO_FAILPOINTS,
    ) -> None:
        self.replica = replica
        self.scripts = scripts = Scripts(client, failpoints)
        self.readers = Readers(client, settings)
        self.streams = Streams(client, scripts, settings, replica)
        self.delayed = Delayed(client, scripts, settings)
        self.dead_letters = DeadLetters(client, scripts)
        self.replicas = Replicas(client, scripts, settings, replica)
        self.limits = Limits(scripts)
        self.bell = Bell(client, self.readers)
        self.lead = Lead(client, replica)
        self.server = Server(client, replica)

    async def prepare(self) -> None:
        """Look whether this is a Redis that the service can work with, and create its groups.

        Raises:
            ServiceError: UNAVAILABLE; with a ``remedy`` if this one will not do as it is.
        """
        await self.server.examine()
        for mailbox in SHARED:
            await self.streams.ensure_group(mailbox)

    def inbox(self, mailbox: str) -> Inbox:
        """The reading end of a mailbox, over a connection of its own."""
        return Inbox(mailbox, self.replica, self.readers.open(), self.streams, self.replicas)

    async def forget(self, request_id: str) -> None:
        """Drop what waits to come back, and is dead, of a request whose data are gone.

        Messages in a mailbox stay: whoever takes one finds nothing to do, and settles it.
        """
        await self.delayed.forget(request_id)
        await self.dead_letters.forget(request_id)
