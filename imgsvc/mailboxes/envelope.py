"""A message as it is taken out of a mailbox, and what it may carry."""

from __future__ import annotations

from dataclasses import dataclass

from imgsvc.domain.messages import Compressed, Fetched, ImageJob, Reused, WebhookJob

Job = ImageJob | WebhookJob
Facts = Fetched | Compressed | Reused | None


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message as it was taken out of a mailbox.

    Attributes:
        mailbox: where it was taken from.
        entry_id: its id in that stream.
        key: of the job; a key is in flight once.
        job: the job as JSON.
        facts: what the stage before found out, as JSON; empty if there was none.
        deliveries: how often a replica was lost after it had begun to work on the message.
    """

    mailbox: str
    entry_id: str
    key: str
    job: str
    facts: str
    deliveries: int
