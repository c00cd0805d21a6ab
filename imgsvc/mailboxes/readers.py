"""Connections for blocking reads: one for each reader, so that no read holds up another."""

from __future__ import annotations

import contextlib

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from imgsvc.mailboxes.connection import connect
from imgsvc.mailboxes.refusals import translated
from imgsvc.runtime.settings import Redis as Settings

_ANSWER_S = 10  # a blocking read's socket must outlast the time it may block for


class Reader:
    """A client with one connection, known by its number, so that it can be woken.

    ``CLIENT LIST`` would tell the number as well, but managed services and careful operators do
    not allow it.

    Args:
        settings: where Redis is.
    """

    def __init__(self, settings: Settings) -> None:
        self.client = connect(settings, answer_s=_ANSWER_S, on_connect=self._connected)
        self.connection_id: int | None = None  # if Redis tells
        self.closed = False

    async def _connected(self, connection: AbstractConnection) -> None:
        self.connection_id = None
        await connection.on_connect()
        with contextlib.suppress(ResponseError):  # not allowed: then reads end by themselves
            await connection.send_command("CLIENT", "ID")
            self.connection_id = int(await connection.read_response())

    async def close(self) -> None:
        """Close the connection."""
        self.connection_id, self.closed = None, True
        await self.client.aclose()


class Readers:
    """All readers of this replica.

    Args:
        client: from ``connect``; it wakes the readers.
        settings: where Redis is.
    """

    def __init__(self, client: Redis, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._open: list[Reader] = []

    def open(self) -> Reader:
        """A new reader; whoever gets it closes it."""
        self._open = [one for one in self._open if not one.closed]
        self._open.append(Reader(self._settings))
        return self._open[-1]

    async def end_reads(self) -> None:
        """Have blocking reads return empty-handed at once, if Redis allows that.

        To them it is as if their time had run out. Cancelling them would strand entries.
        """
        for reader in self._open:
            if reader.connection_id is not None:
                with translated():
                    await self._client.client_unblock(reader.connection_id)
