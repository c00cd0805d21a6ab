"""The bell that wakes the dealer: new requests ring it, and so does a mailbox that runs low."""

from __future__ import annotations

from redis.asyncio import Redis

from imgsvc.mailboxes.keys import WAKE
from imgsvc.mailboxes.readers import Reader, Readers
from imgsvc.mailboxes.refusals import translated
from imgsvc.runtime import logs, redaction


class Bell:
    """Rings for the dealer, wherever it runs.

    Args:
        client: from ``connect``.
        readers: where a listener gets its connection.
    """

    def __init__(self, client: Redis, readers: Readers) -> None:
        self._client = client
        self._readers = readers
        self._log = logs.get("mailboxes")

    async def ring(self) -> None:
        """Tell the dealer that there is new work.

        This never fails. It is only a hint, for the dealer looks by itself as well, and whatever is
        wrong with Redis, what was written to the ledger stays written.
        """
        try:
            # In front, and the rest cut off: a mailbox that runs low says less.
            await self._client.lpush(WAKE, "news")
            await self._client.ltrim(WAKE, 0, 0)
        except Exception as error:  # noqa: BLE001 - see above
            self._log.warning("dealer.not_woken", cause=redaction.of_error(error))

    def listener(self) -> Listener:
        """Somebody who waits for the bell, over a connection of its own."""
        return Listener(self._readers.open())


class Listener:
    """Waits for the bell.

    Args:
        reader: used by this listener alone.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def wait(self, timeout_s: float) -> str:
        """Wait until the bell rings, ``timeout_s`` at most.

        Returns:
            ``news`` if there is new work, ``low`` if a mailbox runs low, nothing if it did not ring.
        """
        with translated():
            rung = await self._reader.client.blpop([WAKE], timeout=timeout_s)
        return str(rung[1]) if rung else ""

    async def close(self) -> None:
        """Close the connection."""
        await self._reader.close()
