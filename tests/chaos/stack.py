"""Everything that replicas of one service share: servers, proxies before them, the outside world."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import urllib.parse
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import redis.asyncio
from pymongo import AsyncMongoClient
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from yarl import URL

from imgsvc.embedded.servers import EmbeddedServers
from tests.chaos.album import Picture
from tests.chaos.proxy import BucketProxy, LedgerProxy, serving
from tests.chaos.replicas import Replica, inherited
from tests.chaos.world import Album, Posted, Witness
from tests.conftest import SECRET


class Stack:
    """One service: a database of its own in each of the servers, and its replicas.

    Args:
        servers: running.
        name: of its database in MongoDB, its bucket, and its folder.
        number: which of Redis' databases.
        folder: for logs and spools.
        gcs: the way to the bucket.
        ledger: the way to MongoDB.
        origin: where the pictures are.
        session: to call replicas with.
        settings: environment variables for all replicas, over those made here.
    """

    def __init__(
        self,
        servers: EmbeddedServers,
        name: str,
        number: int,
        *,
        folder: Path,
        gcs: BucketProxy,
        ledger: LedgerProxy,
        origin: Album,
        session: aiohttp.ClientSession,
        settings: dict[str, str],
    ) -> None:
        self.servers = servers
        self.folder = folder
        self.gcs = gcs
        self.ledger = ledger
        self.origin = origin
        self.session = session
        self.bucket = name
        self.spool = folder / "spool"
        self.replicas: list[Replica] = []
        self.settled: set[str] = set()  # requests that were checked before
        self._numbers = itertools.count(1)
        endpoints = servers.endpoints
        self.redis = redis.asyncio.Redis(
            port=endpoints.redis_port,
            db=number,
            decode_responses=True,
            retry=Retry(ConstantBackoff(0.2), 10),
            socket_timeout=5,
        )
        self._mongo: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(endpoints.mongo_uri)
        self._database = self._mongo[name]
        self.environment = {
            **inherited(),
            "REDIS_PORT": str(endpoints.redis_port),
            "IMGSVC_REDIS__DB": str(number),
            "IMGSVC_REDIS__HEARTBEAT_S": "1",
            "IMGSVC_REDIS__RECONCILE_S": "1",
            "MONGO_URI": ledger.uri,
            "IMGSVC_MONGO__DATABASE": self.bucket,
            "IMGSVC_MONGO__INTAKE_S": "2",
            "IMGSVC_GCS__TIMEOUT_S": "3",  # so soon after a cancellation its objects are swept
            "IMGSVC_GCS__RETRY_S": "3",
            "STORAGE_EMULATOR_HOST": gcs.url,
            "GCP_BUCKET_NAME": self.bucket,
            "IMGSVC_SPOOL__DIR": str(self.spool),
            "IMGSVC_CODEC__WORKERS": "1",
            "IMGSVC_NET__ALLOW": '["127.0.0.0/8"]',
            "IMGSVC_WEBHOOK__SECRETS": f'["{SECRET}"]',
            "IMGSVC_WEBHOOK__DELAY_MS": "50",
            "IMGSVC_WEBHOOK__TIMEOUT_S": "3",  # so long is an attempt waited for that was cut off
            "IMGSVC_RATELIMIT__ENABLED": "false",
            "IMGSVC_FETCH__SILENCE_S": "60",  # tests hold images back, on slow machines too
            "IMGSVC_FETCH__TOTAL_S": "60",
            **settings,
        }

    def start(self, name: str = "replica", *, armed: str | None = None, **more: str) -> Replica:
        """Start a replica, without waiting for it.

        Args:
            name: what to call it.
            armed: the failpoint at which it is to die.
            more: settings of its own, as environment variables.
        """
        environment = {**self.environment, **more}
        if armed:
            environment["IMGSVC_DEV__FAILPOINT"] = armed
        made = Replica(f"{name}-{next(self._numbers)}", environment, self.session, self.folder)
        self.replicas = [one for one in self.replicas if one.running] + [made]
        return made

    def new_post(
        self, products: list[list[Picture]], webhook: Witness | None = None, **more: Any
    ) -> Posted:
        """An upload to be made, its pictures in place at the origin."""
        posted = Posted(f"p{next(self._numbers)}", products, self.origin, webhook, **more)
        posted.lay_out()
        return posted

    async def objects(self, prefix: str = "") -> dict[str, int]:
        """Size of each object in the bucket whose name begins so."""
        found: dict[str, int] = {}
        url = f"{self.servers.endpoints.gcs_url}/storage/v1/b/{self.bucket}/o"
        token: str | None = ""
        while token is not None:
            query = {"prefix": prefix, **({"pageToken": token} if token else {})}
            async with self.session.get(url, params=query) as response:
                page = await response.json()
            found |= {item["name"]: int(item["size"]) for item in page.get("items", [])}
            token = page.get("nextPageToken")
        return found

    async def delete_objects(self, prefix: str) -> None:
        """Delete the objects whose names begin so, behind the service's back."""
        bucket = f"{self.servers.endpoints.gcs_url}/storage/v1/b/{self.bucket}/o"
        for name in await self.objects(prefix):
            url = URL(f"{bucket}/{urllib.parse.quote(name, safe='')}", encoded=True)
            async with self.session.delete(url) as response:
                assert response.status < 300, name

    async def orphans(self) -> list[str]:
        """Ids of requests that do not exist, or not any more, but have products."""
        there = {"erasedAt": {"$exists": False}}
        accepted = set(await self._database["requests"].distinct("_id", there))
        return sorted(set(await self._database["products"].distinct("request")) - accepted)

    async def unswept(self) -> list[str]:
        """Ids of requests that are to be erased, or to be swept up after."""
        wanted = {"$or": [{"erasing": {"$exists": True}}, {"sweepFrom": {"$exists": True}}]}
        return sorted(await self._database["requests"].distinct("_id", wanted))

    async def memories_of_erased(self) -> list[str]:
        """Objects of requests that do not exist any more, by which sources are remembered."""
        there = {"erasedAt": {"$exists": False}}
        accepted = set(await self._database["requests"].distinct("_id", there))
        named = await self._database["sources"].distinct("end.output")
        return sorted(name for name in named if name.partition("/")[0] not in accepted)

    async def stop(self) -> None:
        """End all replicas."""
        await self._mongo.close()
        for replica in self.replicas:
            if replica.running:
                await replica.kill()
        await self.redis.aclose()


async def post(replica: Replica, posted: Posted) -> bool:
    """Make an upload; whether it was accepted.

    One that was not may yet be there: the answer may have been lost.
    """
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        status, answer = await replica.call("POST", "/api/upload", **posted.call)
        if status == 202:
            posted.accepted = answer["requestId"]
            return True
        assert status == 503, answer
    return False


async def ask(replica: Replica, method: str, path: str, **request: Any) -> None:
    """Make a call that may not be answered."""
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        await replica.call(method, path, **request)


@contextlib.asynccontextmanager
async def service(
    servers: EmbeddedServers,
    name: str,
    number: int,
    parent: Path,
    origin: Album | None = None,
    **settings: str,
) -> AsyncIterator[Stack]:
    """A service without replicas yet; at the end none is left.

    Args:
        servers: running.
        name: of its database in MongoDB, its bucket, and its folder.
        number: which of Redis' databases.
        parent: where its folder goes, with logs and spools.
        origin: where the pictures are; a prompt one if left out.
        settings: environment variables for all replicas.
    """
    folder = parent / name
    folder.mkdir()
    async with (
        serving(BucketProxy(servers.gcs.port)) as gcs,
        serving(LedgerProxy(servers.mongo.port)) as ledger,
        origin or Album() as running,
        aiohttp.ClientSession() as session,
    ):
        stack = Stack(
            servers,
            name,
            number,
            folder=folder,
            gcs=gcs,
            ledger=ledger,
            origin=running,
            session=session,
            settings=settings,
        )
        try:
            yield stack
        finally:
            gcs.heal()
            ledger.heal()
            await asyncio.shield(stack.stop())
