"""All parts of the ledger over one connection to MongoDB."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from imgsvc.domain.model import RequestStatus
from imgsvc.ledger.api_keys import ApiKeys
from imgsvc.ledger.backlog import Backlog
from imgsvc.ledger.choices import Choices
from imgsvc.ledger.commands import Commands
from imgsvc.ledger.completion import Completion
from imgsvc.ledger.copies import Copies
from imgsvc.ledger.deliveries import Deliveries
from imgsvc.ledger.delivery_log import DeliveryLog
from imgsvc.ledger.erasures import Erasures
from imgsvc.ledger.images import Images
from imgsvc.ledger.journal import Journal
from imgsvc.ledger.leftovers import Leftovers
from imgsvc.ledger.refusals import Refusals
from imgsvc.ledger.requests import Requests
from imgsvc.ledger.schema import MIGRATIONS, Migration
from imgsvc.ledger.sources import Sources
from imgsvc.ledger.store import Store
from imgsvc.ledger.uploads import Uploads
from imgsvc.runtime.failpoints import NO_FAILPOINTS, Failpoints
from imgsvc.runtime.settings import Mongo


class Ledger:
    """Everything the service remembers.

    Every method of its parts raises ``ServiceError(UNAVAILABLE)`` while MongoDB is away.

    Args:
        settings: where MongoDB is.
        failpoints: for tests of faults.
        expecting: whether more images will end soon; then writing an end waits a little for them.
        on_ended: called with the status in which a request has ended, by the replica that ended it.
        migrations: how the schema came to be what this code knows.

    Raises:
        SettingsError: the connection string cannot be used.
    """

    def __init__(
        self,
        settings: Mongo,
        failpoints: Failpoints = NO_FAILPOINTS,
        *,
        expecting: Callable[[], bool] = lambda: True,
        on_ended: Callable[[RequestStatus], None] = lambda _: None,
        migrations: Sequence[Migration] = MIGRATIONS,
    ) -> None:
        store = Store(settings, failpoints, migrations)
        self.store = store
        self.journal = Journal(store, settings.intake_s)
        self.uploads = Uploads(store, self.journal)
        self.requests = Requests(store)
        self.backlog = Backlog(store)
        self.completion = Completion(store, on_ended)
        self.images = Images(store, self.completion, expecting)
        self.copies = Copies(store, self.images)
        self.choices = Choices(store)
        self.commands = Commands(store, self.completion)
        self.deliveries = Deliveries(store)
        self.delivery_log = DeliveryLog(store)
        self.sources = Sources(store, expecting)
        self.erasures = Erasures(store, self.journal, self.sources)
        self.refusals = Refusals(store)
        self.leftovers = Leftovers(store)
        self.api_keys = ApiKeys(store)

    async def prepare(self) -> None:
        """Bring the schema up to date and create the indexes; harmless when they are there.

        Raises:
            SettingsError: MongoDB refuses us for good, or the database is newer than this code.
            ServiceError: UNAVAILABLE for now.
        """
        await self.store.prepare()

    async def check(self) -> None:
        """Look whether MongoDB answers, lets us read, and has a schema that this code knows.

        Raises:
            SettingsError: the database is newer.
            ServiceError: UNAVAILABLE.
        """
        await self.store.check()

    def close(self) -> None:
        """Close all connections, without waiting long for a MongoDB that does not answer."""
        self.store.close()
