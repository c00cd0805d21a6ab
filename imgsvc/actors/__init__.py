"""The actors, in the order in which an image meets them.

    Dealer      ledger            -> fetch             tenants in turn, and their requests
    Fetcher     fetch             -> compress:<me>     URL to spool file; the PriorityFetcher
                                                       beside it has fetch:priority
    Compressor  compress:<me>     -> upload:<me>       spool file to spool file
    Uploader    upload:<me>       -> bucket, ledger    the last image of a request -> notify
    Copier      copies            -> ledger            other images with the same address
    Notifier    notify            -> receiver          failed: notify:delayed
    Clock       *:delayed         -> *                 what is due
    Eraser      ledger            -> bucket, ledger    requests whose time is over, and leftovers
    Reaper      a lost replica's  -> shared mailboxes  and this replica's heartbeat

Every actor runs in every replica. ``PIPELINE`` is the whole composition.
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
