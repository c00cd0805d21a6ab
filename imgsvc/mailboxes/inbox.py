"""The reading end of one mailbox."""

from __future__ import annotations

from typing import Any

from redis.exceptions import ResponseError

from imgsvc.mailboxes.envelope import Envelope
from imgsvc.mailboxes.keys import GROUP
from imgsvc.mailboxes.readers import Reader
from imgsvc.mailboxes.refusals import code_of, translated
from imgsvc.mailboxes.replicas import Replicas
from imgsvc.mailboxes.streams import Streams

BLOCK_MS = 2000


class Inbox:
    """Takes messages out of one mailbox, over a blocking connection of its own.

    A blocking read is never cancelled: entries it was about to deliver would be stranded. The
    owner stops calling ``take`` and waits for the last read to end, ``BLOCK_MS`` at most.

    Args:
        name: the mailbox.
        replica: the id of this process.
        reader: used by this inbox alone.
        streams: creates the group if Redis was wiped.
        replicas: renews the heartbeat then.
    """

    def __init__(
        self, name: str, replica: str, reader: Reader, streams: Streams, replicas: Replicas
    ) -> None:
        self.name = name
        self._replica = replica
        self._reader = reader
        self._streams = streams
        self._replicas = replicas
        self._in_hand: set[str] = set()
        # A read that failed may have delivered: its entries are in our pending list.
        self._suspect = True
        self._dropped = False  # as a read under way must not forget

    async def take(self, count: int, block_ms: int = BLOCK_MS) -> list[Envelope]:
        """Up to ``count`` messages; an empty list after ``block_ms`` without any.

        Raises:
            ServiceError: Redis is away.
        """
        suspect = self._suspect or self._dropped
        self._suspect, self._dropped = True, False
        answer: Any = None
        with translated():
            try:
                answer = await self._reader.client.xreadgroup(
                    GROUP,
                    self._replica,
                    {self.name: "0" if suspect else ">"},
                    count=None if suspect else count,
                    block=None if suspect else block_ms,
                )
            except ResponseError as error:
                if code_of(error) not in {"NOGROUP", "UNBLOCKED"}:
                    raise
                # Redis was wiped: whatever is in the stream now, its first entry included, is ours.
                await self._streams.ensure_group(self.name)
                await self._replicas.beat()
                return []
        self._suspect = False
        # RESP3 answers a map of lists of pairs; the client's types cover older forms as well.
        entries: list[tuple[str, dict[str, str]]] = (answer or {}).get(self.name, [])
        envelopes = [
            self._envelope(entry_id, fields)
            for entry_id, fields in entries
            if entry_id not in self._in_hand and fields
        ]
        self._in_hand.update(e.entry_id for e in envelopes)
        return envelopes

    def release(self, envelope: Envelope) -> None:
        """Say that a message was settled, passed on or given up."""
        self._in_hand.discard(envelope.entry_id)

    def take_again(self, envelope: Envelope) -> None:
        """Say that a message was dropped; it is delivered once more if it is still pending."""
        self.release(envelope)
        self._dropped = True

    async def close(self) -> None:
        """Close the connection."""
        await self._reader.close()

    def _envelope(self, entry_id: str, fields: dict[str, str]) -> Envelope:
        return Envelope(
            mailbox=self.name,
            entry_id=entry_id,
            key=fields.get("k", ""),
            job=fields.get("m", ""),
            facts=fields.get("x", ""),
            deliveries=int(fields.get("n", 0)),
        )
