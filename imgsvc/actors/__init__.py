"""The actors, in the order in which an image meets them.

    Dealer      ledger            -> fetch             tenants take turns, and so do their requests
    Fetcher     fetch             -> compress:<me>     URL to spool file; beside it the
                                                       PriorityFetcher reads fetch:priority
    Compressor  compress:<me>     -> upload:<me>       spool file to spool file
    Uploader    upload:<me>       -> bucket, ledger    the last image of a request -> notify
    Copier      copies            -> ledger            other images with the same URL
    Notifier    notify            -> receiver          if that fails: notify:delayed
    Clock       *:delayed         -> *                 messages that are due
    Eraser      ledger            -> bucket, ledger    expired and erased requests, and orphans
    Reaper      lost replicas     -> shared mailboxes  also sends this replica's heartbeat

Every actor runs in every replica, and ``PIPELINE`` lists them all. ``actor`` is what they have in
common. Those that read a mailbox (``mailbox_actor``) return one of the ``verdicts`` on each message;
``image_actor`` adds the ways in which the work on an image ends.
"""

from imgsvc.actors.actor import Actor
from imgsvc.actors.clock import Clock
from imgsvc.actors.compressor import Compressor
from imgsvc.actors.copier import Copier
from imgsvc.actors.dealer import Dealer
from imgsvc.actors.eraser import Eraser
from imgsvc.actors.fetcher import Fetcher
from imgsvc.actors.notifier import Notifier
from imgsvc.actors.parts import Parts
from imgsvc.actors.priority_fetcher import PriorityFetcher
from imgsvc.actors.reaper import Reaper
from imgsvc.actors.supervisor import Supervisor
from imgsvc.actors.uploader import Uploader

PIPELINE: tuple[type[Actor], ...] = (
    Dealer,
    PriorityFetcher,
    Fetcher,
    Compressor,
    Uploader,
    Copier,
    Notifier,
    Clock,
    Eraser,
    Reaper,
)

__all__ = ["PIPELINE", "Actor", "Parts", "Supervisor"]
