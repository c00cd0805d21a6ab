"""The composition root: from settings to a running service, and back down in good order.

It is longer than most files so that the order of starting and the order of leaving stand in one place.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator

from aiohttp import web

from imgsvc.actors import PIPELINE, Parts, Supervisor
from imgsvc.auth.authenticator import Authenticator
from imgsvc.auth.oauth import Tokens
from imgsvc.domain.errors import ServiceError
from imgsvc.http import keys, middleware, routes
from imgsvc.http.limits import header_timeout
from imgsvc.http.limits.body_budget import BodyBudget
from imgsvc.http.limits.reservations import Reservations
from imgsvc.http.readiness import Readiness
from imgsvc.imaging import sandbox
from imgsvc.imaging.identify import sniff
from imgsvc.imaging.pool import CodecPool
from imgsvc.ledger import Ledger
from imgsvc.mailboxes.connection import connect
from imgsvc.mailboxes.mailboxes import Mailboxes
from imgsvc.mailboxes.origins import Origins
from imgsvc.mailboxes.traffic import Traffic
from imgsvc.outbound.client import Outbound
from imgsvc.outbound.politeness import Politeness
from imgsvc.runtime import cgroups, logs, redaction
from imgsvc.runtime.cancellation import cancel_and_wait
from imgsvc.runtime.failpoints import Failpoints
from imgsvc.runtime.metrics import Metrics
from imgsvc.runtime.replica import new_replica_id
from imgsvc.runtime.settings import Settings, SettingsError
from imgsvc.runtime.shutdown import ShutdownDeadline
from imgsvc.storage.bucket import Bucket
from imgsvc.storage.spool import Spool

_PREPARE_EVERY_S = 1.0
_LONGEST_LINE = 128 * 1024  # a query may hold a webhook's URL, of which each character is escaped
_SCHEMA_EVERY_S = 5.0
_CUT_S = 0.2  # for calls that are cut off to end, twice
_log = logs.get("app")


@contextlib.asynccontextmanager
async def parts(
    settings: Settings, deadline: ShutdownDeadline | None = None
) -> AsyncIterator[Parts]:
    """All clients and resources of one process; closed again at the end.

    Args:
        settings: all of them.
        deadline: for closing; ``[http] shutdown_s`` if left out.

    Raises:
        SettingsError: the bucket's credentials or MongoDB's connection string are unusable.
        OSError: the spool folder cannot be made.
    """
    replica = new_replica_id()
    metrics = Metrics()
    failpoints = Failpoints(settings.dev.failpoint)
    close = (deadline or ShutdownDeadline(settings.http.shutdown_s)).close
    async with contextlib.AsyncExitStack() as stack:
        client = connect(settings.redis)
        stack.push_async_callback(close, client.aclose)
        bucket = Bucket(settings.gcs, failpoints)
        stack.push_async_callback(close, bucket.close)
        spool = Spool(settings.spool, replica)
        ledger = Ledger(
            settings.mongo,
            failpoints,
            expecting=lambda: spool.sources > 0,
            on_ended=lambda status: metrics.requests.labels(status).inc(),
        )
        stack.callback(ledger.close)
        outbound = Outbound(settings.net, settings.fetch, sniff, failpoints)
        stack.push_async_callback(close, outbound.close)
        spool.open()
        stack.callback(spool.close)
        codec = CodecPool(settings.codec, metrics, spool.folder)
        stack.callback(codec.close)
        await codec.start()
        mailboxes = Mailboxes(client, settings.redis, replica, failpoints)
        traffic = Traffic(settings.ratelimit, mailboxes.limits, metrics)
        stack.push_async_callback(close, traffic.close)
        yield Parts(
            settings=settings,
            metrics=metrics,
            mailboxes=mailboxes,
            ledger=ledger,
            spool=spool,
            outbound=outbound,
            codec=codec,
            bucket=bucket,
            politeness=Politeness(Origins(mailboxes.scripts, replica, settings.fetch), metrics),
            traffic=traffic,
        )


def application(parts: Parts, health: keys.Health) -> web.Application:
    """The HTTP side of one process."""
    app = web.Application(
        middlewares=middleware.MIDDLEWARES,
        client_max_size=parts.settings.http.body_limit_bytes,
    )
    app[keys.SETTINGS] = parts.settings
    app[keys.LEDGER] = parts.ledger
    app[keys.MAILBOXES] = parts.mailboxes
    app[keys.BUCKET] = parts.bucket
    app[keys.RESERVATIONS] = Reservations()
    app[keys.BODY_BUDGET] = BodyBudget(parts.settings.http.intake_bytes)
    app[keys.OUTBOUND] = parts.outbound
    app[keys.METRICS] = parts.metrics
    app[keys.HEALTH] = health
    if authenticator := _authenticator(parts):
        app[keys.AUTHENTICATOR] = authenticator

        async def let_go(_: web.Application) -> None:
            await authenticator.close()

        app.on_cleanup.append(let_go)
    app.on_response_prepare.append(middleware.add_headers)
    readiness = Readiness(parts.mailboxes.server.check, parts.ledger.check, parts.bucket.check)
    app[keys.READINESS] = readiness

    async def stop_checks(_: web.Application) -> None:
        await readiness.close()

    app.on_cleanup.append(stop_checks)
    routes.add(app)
    return app


def _authenticator(parts: Parts) -> Authenticator | None:
    """Finds out who calls; None if nobody has to say."""
    auth = parts.settings.auth
    if not auth.takes_keys and not auth.takes_tokens:
        return None
    return Authenticator(
        parts.ledger if auth.takes_keys else None,
        Tokens(auth, parts.outbound) if auth.takes_tokens else None,
    )


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run the service.

    Args:
        settings: all of them.
        stop: set it to have the service leave in good order.

    Raises:
        SettingsError: a setting turns out to be unusable.
        GaveUpError: an actor keeps crashing.
        OSError: the port or the spool cannot be had.
    """
    limits = cgroups.read()
    settings = cgroups.fit(settings, limits)
    deadline = ShutdownDeadline(settings.http.shutdown_s)
    async with parts(settings, deadline) as made:
        health = keys.Health()
        runner = web.AppRunner(
            application(made, health),
            access_log=None,
            auto_decompress=False,  # bodies that are compressed are refused
            max_line_size=_LONGEST_LINE,
            keepalive_timeout=settings.http.keepalive_s,
            shutdown_timeout=_CUT_S,
        )
        await runner.setup()
        gc.freeze()  # what is there now stays: looking through it again took 50 ms at times
        assert runner.server is not None  # noqa: S101 - it is there once the runner is set up
        try:
            async with header_timeout.cut_off(runner.server, settings.http.header_timeout_s):
                await web.TCPSite(runner, settings.http.host, settings.http.port).start()
                _log.info(
                    "service.started",
                    replica=made.mailboxes.replica,
                    url=f"http://{settings.http.host}:{settings.http.port}",
                    cpus=limits.cpus,
                    memory_bytes=limits.memory_bytes,
                    codec_workers=made.codec.size,
                    codec_budget_bytes=settings.codec.budget_bytes,
                )
                _log.info(
                    "codec.protected",
                    workers=made.codec.protections,
                    service_hidden=sandbox.is_hidden(),
                )
                if not settings.webhook.secrets:
                    _log.warning("webhook.unsigned", remedy="set [webhook] secrets")
                await _work(made, stop, health, deadline)
        finally:
            health.state = "shutting down"
            await _stop_serving(runner, deadline)
        _log.info("service.stopped")


async def _stop_serving(runner: web.AppRunner, deadline: ShutdownDeadline) -> None:
    """Let calls that are under way finish while there is time, and cut off the rest."""
    server = runner.server
    for site in runner.sites:
        await site.stop()
    if server:
        server.pre_shutdown()
        await deadline.work(server.shutdown)
    await deadline.close(runner.cleanup)


async def _work(
    made: Parts, stop: asyncio.Event, health: keys.Health, deadline: ShutdownDeadline
) -> None:
    """Run the actors until told to stop, then leave in good order."""

    async def hand_back() -> None:
        try:
            handed = await made.mailboxes.replicas.reclaim(made.mailboxes.replica, leaving=True)
        except Exception as error:  # noqa: BLE001 - the others will miss the heartbeat
            _log.warning("shutdown.not_handed_back", cause=redaction.of_error(error))
        else:
            _log.info("shutdown.handed_back", messages=handed)

    stopped = asyncio.create_task(stop.wait())
    working = asyncio.create_task(_run_actors(made, stop, health))
    try:
        await asyncio.wait({stopped, working}, return_when=asyncio.FIRST_COMPLETED)
        health.state = "shutting down"
        deadline.begin()
        await asyncio.wait({working}, timeout=deadline.work_s)
        if working.done():
            await working
        else:
            _log.warning("shutdown.unfinished", remedy="the rest is handed to other replicas")
    finally:
        deadline.begin()
        await cancel_and_wait(stopped, working, within_s=deadline.left_s / 2)
        await deadline.close(hand_back)


async def _run_actors(made: Parts, stop: asyncio.Event, health: keys.Health) -> None:
    if not await _prepare(made, stop):
        return
    supervisor = Supervisor(made, PIPELINE)
    working = asyncio.create_task(supervisor.run())
    stopped = asyncio.create_task(stop.wait())
    outdated = asyncio.create_task(_until_outdated(made.ledger))
    health.state = "ok"
    try:
        await asyncio.wait({stopped, working, outdated}, return_when=asyncio.FIRST_COMPLETED)
        stop.set()  # whatever it was: from now on there is a deadline
        if not working.done():
            health.state = "shutting down"
            await supervisor.stop()
        await working
        if outdated.done():
            await outdated
    finally:
        await cancel_and_wait(stopped, working, outdated)


async def _until_outdated(ledger: Ledger) -> None:
    """Look from time to time whether a newer replica has changed the ledger's schema.

    Raises:
        SettingsError: one has.
    """
    while True:
        await asyncio.sleep(_SCHEMA_EVERY_S)
        with contextlib.suppress(ServiceError):
            await ledger.check()


async def _prepare(made: Parts, stop: asyncio.Event) -> bool:
    """Create what is missing, once the servers are there; False if told to stop meanwhile."""
    while not stop.is_set():
        try:
            await made.ledger.prepare()
            await made.mailboxes.prepare()
            if made.settings.gcs.emulator_host:
                await made.bucket.ensure()  # nobody else makes it in an emulator
            # Known to be alive before the first message is taken.
            await made.mailboxes.replicas.beat()
        except ServiceError as error:
            if error.remedy:
                raise SettingsError(error.remedy) from None
            _log.warning(
                "service.waiting", reason=error.detail, cause=redaction.of_error(error.__cause__)
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _PREPARE_EVERY_S)
        else:
            return True
    return False
