"""Verdicts: what an actor decides about a message, and what the mailboxes do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from imgsvc.mailboxes.envelope import Envelope, Facts, Job
from imgsvc.mailboxes.mailboxes import Mailboxes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """What came of a message.

    Attributes:
        event: the name of the one line that is logged about it.
        fields: what that line says, beside which message it was and how long it took.
    """

    event: str
    fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HandOff(_Verdict):
    """Pass it on to another mailbox."""

    to: str
    job: Job
    facts: Facts = None


@dataclass(frozen=True, slots=True)
class Done(_Verdict):
    """Nothing is left to do."""


@dataclass(frozen=True, slots=True)
class Later(_Verdict):
    """Bring it back to this mailbox after some time."""

    job: Job
    delay_s: float


@dataclass(frozen=True, slots=True)
class Bury(_Verdict):
    """It cannot be done; keep it with the reason until someone acts."""

    reason: str


Verdict = HandOff | Done | Later | Bury


async def carry_out(verdict: Verdict, envelope: Envelope, mailboxes: Mailboxes) -> bool:
    """Do what a verdict says; returns whether the message was still ours.

    Doing it again is safe: the scripts act only if the message is still ours.
    """
    match verdict:
        case HandOff(to, job, facts):
            return await mailboxes.streams.hand_off(envelope, to, job, facts)
        case Done():
            return await mailboxes.streams.settle(envelope)
        case Later(job, delay_s):
            return await mailboxes.delayed.put_aside(envelope, job, delay_s)
        case Bury(reason):
            return await mailboxes.dead_letters.bury(envelope, reason)
