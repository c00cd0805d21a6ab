"""The parts that actors are made of."""

from __future__ import annotations

from dataclasses import dataclass

from imgsvc.imaging.pool import CodecPool
from imgsvc.ledger import Ledger
from imgsvc.mailboxes.mailboxes import Mailboxes
from imgsvc.mailboxes.traffic import Traffic
from imgsvc.outbound.client import Outbound
from imgsvc.outbound.politeness import Politeness
from imgsvc.runtime.metrics import Metrics
from imgsvc.runtime.settings import Settings
from imgsvc.storage.bucket import Bucket
from imgsvc.storage.spool import Spool


@dataclass(frozen=True, slots=True)
class Parts:
    """Settings and clients; ``app`` constructs them, and every actor of a process shares them."""

    settings: Settings
    metrics: Metrics
    mailboxes: Mailboxes
    ledger: Ledger
    spool: Spool
    outbound: Outbound
    codec: CodecPool
    bucket: Bucket
    politeness: Politeness
    traffic: Traffic
