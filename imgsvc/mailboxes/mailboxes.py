"""The actors' mailboxes: Redis Streams with consumer groups.

A message is in exactly one mailbox. Every script under ``lua/`` that moves one acts only if its
``XACK`` answered 1, which makes the pending entry a token that can be spent once: replies lost,
replicas paused and clients that retry never duplicate it. What Redis forgets, the dealer deals
again from the ledger.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple, cast

import orjson
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.messages import Compressed, Fetched, ImageJob, Reused, WebhookJob
from imgsvc.mailboxes import redis_rights
from imgsvc.mailboxes.redis_connection import Reader
from imgsvc.mailboxes.redis_refusals import code_of, translated, unusable
from imgsvc.runtime import logs, redaction
from imgsvc.runtime.failpoints import NO_FAILPOINTS, Failpoints
from imgsvc.runtime.group_commit import GroupCommit
from imgsvc.runtime.settings import Redis as RedisSettings

GROUP = "imgsvc"
TAG = "{imgsvc}"  # one hash tag, so that the scripts work on Redis Cluster
FETCH = f"{TAG}:fetch"
FETCH_PRIORITY = f"{FETCH}:priority"
COPIES = f"{TAG}:copies"
NOTIFY = f"{TAG}:notify"
DEAD = f"{TAG}:dead"
IN_FLIGHT = f"{TAG}:in-flight"
REPLICAS = f"{TAG}:replicas"
WAKE = f"{TAG}:wake"
DEALING = f"{TAG}:dealing"
ERASING = f"{TAG}:erasing"

SHARED = (FETCH, FETCH_PRIORITY, COPIES, NOTIFY)
"""The mailboxes that all replicas read; what a lost one held in its lanes goes to the first."""

BLOCK_MS = 2000
_BATCH = 100
_SCANNED = 1000
# What ``begin`` sets as an entry's number of deliveries in the pending list. Redis counts there, too,
# but nobody else reads that, and it stays far below. The mark goes when the entry does, which a list
# of our own would have to be told.
_BEGUN = 1_000_000
_MOVE_EVERY_S = 0.05
_CHECK_MS = 10_000

Job = ImageJob | WebhookJob
Facts = Fetched | Compressed | Reused | None
_Move = tuple[str, Sequence[str], Sequence[Any]]  # script, keys, arguments


def compress_lane(replica: str) -> str:
    """The mailbox of one replica's Compressor: the bytes are where the Fetcher left them."""
    return f"{TAG}:compress:{replica}"


def upload_lane(replica: str) -> str:
    """The mailbox of one replica's Uploader."""
    return f"{TAG}:upload:{replica}"


def delayed(mailbox: str) -> str:
    """The ZSET of what waits to go back to ``mailbox``, by the time it is due."""
    return f"{mailbox}:delayed"


def waiting(mailbox: str) -> str:
    """The hash that counts, by request, what waits to go back to ``mailbox``."""
    return f"{mailbox}:waiting"


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message as it was taken out of a mailbox."""

    mailbox: str
    entry_id: str
    key: str
    job: str
    facts: str
    deliveries: int  # how often it was lost with a replica that had begun to work on it


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be done."""

    entry_id: str
    mailbox: str
    key: str
    job: str
    reason: str


class Taken(NamedTuple):
    """What came of taking from a limit."""

    admitted: bool
    remaining: int  # of what is limited
    reset_s: float  # until all of it is there again
    wait_s: float  # until as much can be taken; 0 if admitted


class Mailboxes:
    """All that the service does with Redis, over one client.

    Args:
        client: from ``connect``.
        settings: window, lease and heartbeat.
        replica: the id of this process; it owns the lanes of that name.
        failpoints: for tests of faults.
    """

    def __init__(
        self,
        client: Redis,
        settings: RedisSettings,
        replica: str,
        failpoints: Failpoints = NO_FAILPOINTS,
    ) -> None:
        self._client = client
        self._failpoints = failpoints
        self._settings = settings
        self.replica = replica
        self._readers: list[Reader] = []
        self._log = logs.get("mailboxes")
        self._lease_ms = int(settings.lease_s * 1000)
        self._moves = GroupCommit[_Move, Any](self._move_group, _BATCH, _MOVE_EVERY_S)
        self._begins = GroupCommit[Envelope, None](self._begin_group, _BATCH, _MOVE_EVERY_S)
        self._scripts = {
            name: client.register_script(
                resources.files("imgsvc.mailboxes.lua").joinpath(f"{name}.lua").read_text("utf-8")
            )
            for name in (
                "beat",
                "blame",
                "bury",
                "deal",
                "forget",
                "hand_off",
                "later",
                "promote",
                "reclaim",
                "settle",
                "share",
                "take_token",
            )
        }

    async def run(self, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """What a script of ``lua/`` answers.

        Raises:
            ServiceError: UNAVAILABLE if Redis is away.
        """
        with translated(), self._failpoints.around(f"redis.{script}"):
            return await self._scripts[script](keys=list(keys), args=list(args))

    async def _move(self, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a script about one message; under load several share a trip to Redis."""
        with translated(), self._failpoints.around(f"redis.{script}"):
            answer = await self._moves.submit((script, keys, args))
            if isinstance(answer, Exception):
                raise answer
        return answer

    async def _move_group(self, group: Sequence[_Move]) -> Sequence[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for script, keys, args in group:
            pipeline.evalsha(self._scripts[script].sha, len(keys), *keys, *args)
        answers = await pipeline.execute(raise_on_error=False)
        for number, (script, keys, args) in enumerate(group):
            if isinstance(answers[number], NoScriptError):  # nothing was done; this loads it
                try:
                    answers[number] = await self._scripts[script](keys=keys, args=args)
                except RedisError as error:  # the others in the group have their answers
                    answers[number] = error
        return answers

    async def begin(self, envelope: Envelope) -> None:
        """Note that work on a message has begun; nothing happens if it is not ours any more.

        If this replica is lost now, the message is charged for it; those that wait are not.
        """
        with translated():
            await self._begins.submit(envelope)

    async def _begin_group(self, group: Sequence[Envelope]) -> list[None]:
        pipeline = self._client.pipeline(transaction=False)
        for each in group:
            pipeline.xclaim(
                each.mailbox,
                GROUP,
                self.replica,
                0,
                [each.entry_id],
                retrycount=_BEGUN,
                justid=True,
            )
        await pipeline.execute(raise_on_error=False)
        return [None] * len(group)

    def inbox(self, mailbox: str) -> Inbox:
        """The reading end of a mailbox, over a connection of its own."""
        return Inbox(self._reader(), self, mailbox)

    def bell(self) -> Bell:
        """The dealer's bell, over a connection of its own."""
        return Bell(self._reader())

    def _reader(self) -> Reader:
        self._readers = [one for one in self._readers if not one.closed]
        self._readers.append(Reader(self._settings))
        return self._readers[-1]

    async def prepare(self) -> None:
        """Look whether this is a Redis that the service can work with, and create its groups.

        Raises:
            ServiceError: UNAVAILABLE; with a ``remedy`` if this one will not do as it is.
        """
        await self._look_at_mode()
        await self._look_at_rights()
        for mailbox in SHARED:
            await self.ensure_group(mailbox)

    async def _look_at_mode(self) -> None:
        with translated():
            # Every connection begins with it, so that who may do nothing else may do this.
            told: Any = await self._client.execute_command("HELLO")  # type: ignore[no-untyped-call]
        mode = told.get("mode") if isinstance(told, dict) else None
        if mode == "cluster":
            raise unusable(
                "This Redis is a node of a cluster, which is not supported: "
                "use a single Redis, or Sentinels."
            )
        if mode == "sentinel":
            raise unusable("This is a Redis Sentinel: write redis+sentinel://host:port/service.")

    async def _look_at_rights(self) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for words in redis_rights.commands(f"{TAG}:check:{self.replica}:rights"):
            pipeline.execute_command(*words)
        with translated():
            for answer in await pipeline.execute(raise_on_error=False):
                if isinstance(answer, Exception) and code_of(answer) not in redis_rights.HARMLESS:
                    raise answer

    async def ensure_group(self, mailbox: str) -> None:
        """Create the consumer group, from the mailbox' first entry on, if it is missing."""
        with translated():
            try:
                await self._client.xgroup_create(mailbox, GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if code_of(error) != "BUSYGROUP":
                    raise

    async def deal(self, mailbox: str, jobs: Sequence[Job], *, bounded: bool) -> tuple[int, int]:
        """Put work into a shared mailbox unless it is in flight already.

        Args:
            mailbox: ``FETCH``, ``FETCH_PRIORITY`` or ``NOTIFY``.
            jobs: what to put, in order.
            bounded: stop when the mailbox holds as many entries per live replica as it has room
                for: ``[redis] window``, or what is kept for images that somebody waits for.

        Returns:
            How many jobs were looked at before the window closed, and how many were new.
        """
        if not jobs:
            return 0, 0
        pairs = [text for job in jobs for text in (job.key, job.model_dump_json())]
        settings = self._settings
        room = settings.priority_window if mailbox == FETCH_PRIORITY else settings.window
        seen, added = await self.run(
            "deal", (mailbox, IN_FLIGHT, REPLICAS), (room if bounded else 0, self._lease_ms, *pairs)
        )
        return int(seen), int(added)

    async def hand_off(
        self, envelope: Envelope, to: str, job: Job, facts: Facts, *, deliveries: int | None = None
    ) -> bool:
        """Pass a message on; False if it was not ours any more and nothing was done.

        Args:
            envelope: what was taken.
            to: the next mailbox.
            job: what goes on.
            facts: what this stage found out, for the next.
            deliveries: how often it was lost so far; unchanged when left out.
        """
        answer = await self._move(
            "hand_off",
            (envelope.mailbox, to, IN_FLIGHT, WAKE),
            (
                GROUP,
                envelope.entry_id,
                self._lease_ms,
                envelope.key,
                job.key,
                job.model_dump_json(),
                facts.model_dump_json() if facts else "",
                envelope.deliveries if deliveries is None else deliveries,
                self._low_water(envelope.mailbox),
            ),
        )
        return bool(answer)

    async def settle(self, envelope: Envelope) -> bool:
        """Finish with a message whose work is recorded; False if it was not ours any more."""
        return bool(
            await self._move(
                "settle",
                (envelope.mailbox, IN_FLIGHT, WAKE),
                (GROUP, envelope.entry_id, envelope.key, self._low_water(envelope.mailbox)),
            )
        )

    async def later(self, envelope: Envelope, job: Job, delay_s: float) -> bool:
        """Put a message aside for ``delay_s`` seconds; False if it was not ours any more."""
        back = FETCH if envelope.mailbox == FETCH_PRIORITY else envelope.mailbox
        return bool(
            await self._move(
                "later",
                (envelope.mailbox, delayed(back), IN_FLIGHT, waiting(back)),
                (
                    GROUP,
                    envelope.entry_id,
                    self._lease_ms,
                    envelope.key,
                    job.model_dump_json(),
                    max(0, round(delay_s * 1000)),
                    envelope.deliveries,
                ),
            )
        )

    async def bury(self, envelope: Envelope, reason: str) -> bool:
        """Move a message that cannot be done to the dead mailbox; False if it was not ours."""
        return bool(
            await self._move(
                "bury",
                (envelope.mailbox, DEAD, IN_FLIGHT),
                (GROUP, envelope.entry_id, envelope.key, envelope.job, reason),
            )
        )

    async def promote(self, mailbox: str) -> float | None:
        """Move what is due back to ``mailbox``; images that somebody waits for have their own.

        Returns:
            Seconds until the next message is due, or None if none waits.
        """
        keys = (mailbox, delayed(mailbox), waiting(mailbox), FETCH_PRIORITY, REPLICAS)
        moved, next_ms = await self.run("promote", keys, (_BATCH, self._settings.priority_window))
        if int(moved) == _BATCH:
            return 0.0
        return None if int(next_ms) < 0 else int(next_ms) / 1000

    async def put_off(self, mailbox: str) -> dict[str, int]:
        """How many messages of each request wait to come back to ``mailbox``."""
        with translated():
            found = await self._client.hgetall(waiting(mailbox))
        return {str(request): int(count) for request, count in found.items()}

    async def in_flight(self, keys: Collection[str]) -> set[str]:
        """Which of these keys some mailbox knows."""
        if not keys:
            return set()
        asked = sorted(keys)
        with translated():
            marks = await self._client.zmscore(IN_FLIGHT, asked)
        return {key for key, mark in zip(asked, marks, strict=True) if mark is not None}

    async def beat(self) -> None:
        """Renew this replica's heartbeat."""
        ttl_ms = int(self._settings.heartbeat_s * 1000)
        await self.run("beat", (REPLICAS,), (self.replica, ttl_ms))

    async def reclaim(self, replica: str, *, leaving: bool = False) -> int:
        """Take back all that ``replica`` held; nothing if its heartbeat is fresh.

        Args:
            replica: whose mailboxes.
            leaving: this replica itself is going away in good order.

        Returns:
            How many messages went back to the shared mailboxes.
        """
        keys = (REPLICAS, *SHARED, compress_lane(replica), upload_lane(replica))
        total = 0
        while True:
            moved, done = await self.run(
                "reclaim", keys, (GROUP, replica, _BATCH, int(leaving), len(SHARED), _BEGUN)
            )
            if int(moved) < 0:
                return total
            total += int(moved)
            if int(done):
                return total

    async def silent_replicas(self) -> set[str]:
        """Replicas whose heartbeat expired, and consumers that never had one."""
        with translated():
            seconds, micros = await self._client.time()
            now_ms = seconds * 1000 + micros // 1000
            silent = set(await self._client.zrangebyscore(REPLICAS, "-inf", now_ms))
            alive = set(await self._client.zrangebyscore(REPLICAS, f"({now_ms}", "+inf"))
            for mailbox in SHARED:
                with contextlib.suppress(ResponseError):  # no such key yet
                    consumers = await self._client.xinfo_consumers(mailbox, GROUP)
                    silent |= {c["name"] for c in consumers} - alive
        return {str(name) for name in silent} - {self.replica}

    async def forget_doubtful(self) -> int:
        """Drop in-flight marks that outlived their lease, so that the work is dealt again."""
        with translated():
            seconds, micros = await self._client.time()
            return int(
                await self._client.zremrangebyscore(
                    IN_FLIGHT, "-inf", seconds * 1000 + micros // 1000
                )
            )

    async def lead(self, office: str, ttl_s: float) -> bool:
        """Become or stay the one who deals or erases; only a saving, for twice is harmless.

        Args:
            office: ``DEALING`` or ``ERASING``.
            ttl_s: how long the lead lasts unless it is renewed.
        """
        ttl_ms = int(ttl_s * 1000)
        with translated():
            if await self._client.set(office, self.replica, nx=True, px=ttl_ms):
                return True
            if await self._client.get(office) != self.replica:
                return False
            return bool(await self._client.pexpire(office, ttl_ms))

    async def stop_leading(self, office: str) -> None:
        """Let another replica lead at once."""
        with translated():
            if await self._client.get(office) == self.replica:
                await self._client.delete(office)

    async def wake_dealer(self) -> None:
        """Tell the dealer, wherever it runs, that there is new work.

        It is only a hint, for the dealer looks for itself: whatever is wrong with Redis, what was
        done in the ledger is done, so this never fails.
        """
        try:
            # In front, and the rest cut off: a mailbox that runs low says less.
            await self._client.lpush(WAKE, "news")
            await self._client.ltrim(WAKE, 0, 0)
        except Exception as error:  # noqa: BLE001 - see above
            self._log.warning("dealer.not_woken", cause=redaction.of_error(error))

    async def take_token(
        self, bucket: str, limit: int, period_s: float, cost: int = 1, *, owed: bool = False
    ) -> Taken:
        """Take from what a client may have in a period, if that much is left.

        Args:
            bucket: what is limited, such as ``upload:<client>``.
            limit: how much is allowed in the period.
            period_s: the period.
            cost: how much is taken; negative gives back, 0 asks whether anything is owed.
            owed: take it even if it is not left; what is missing is waited for by the next.
        """
        admitted, remaining, reset_ms, wait_ms = await self.run(
            "take_token",
            (f"{TAG}:limit:{bucket}",),
            (limit, int(period_s * 1000), cost, int(owed)),
        )
        return Taken(bool(admitted), int(remaining), int(reset_ms) / 1000, int(wait_ms) / 1000)

    async def end_reads(self) -> None:
        """Have this replica's blocking reads return empty-handed at once, if Redis allows that.

        To them it is as if their time had run out; cancelling them would strand entries.
        """
        for reader in self._readers:
            if reader.connection_id is not None:
                with translated():
                    await self._client.client_unblock(reader.connection_id)

    async def files_in_lanes(self) -> set[str]:
        """Spool files that messages in this replica's lanes refer to."""
        files = set()
        for lane in (compress_lane(self.replica), upload_lane(self.replica)):
            with translated():
                entries = await self._client.xrange(lane)
            for _, fields in cast("list[tuple[str, dict[str, str]]]", entries):
                if facts := fields.get("x"):
                    files |= {file for key, file in orjson.loads(facts).items() if key == "file"}
        return files

    async def dead_letters(self, limit: int, entry_id: str | None = None) -> list[DeadLetter]:
        """What could not be done, oldest first; or the one entry of that id."""
        return await self._dead(entry_id or "-", entry_id or "+", limit)

    async def _dead(self, first: str, last: str, limit: int) -> list[DeadLetter]:
        with translated():
            entries = await self._client.xrange(DEAD, min=first, max=last, count=limit)
        return [
            DeadLetter(
                entry_id=found_id,
                mailbox=fields["from"],
                key=fields["k"],
                job=fields["m"],
                reason=fields["reason"],
            )
            for found_id, fields in cast("list[tuple[str, dict[str, str]]]", entries)
        ]

    async def drop_dead_letter(self, entry_id: str) -> bool:
        """Forget a dead letter; False if it is not there."""
        with translated():
            return bool(await self._client.xdel(DEAD, entry_id))

    async def forget(self, request_id: str) -> None:
        """Drop what waits to come back, and is dead, of a request whose data are gone.

        What is in a mailbox finds nothing to do, and goes by itself.
        """
        for mailbox in (FETCH, NOTIFY):
            keys = (delayed(mailbox), waiting(mailbox), IN_FLIGHT)
            with translated():
                waits = await self._client.hget(waiting(mailbox), request_id)
                found = self._client.zscan_iter(
                    delayed(mailbox), match=f"*{request_id}*", count=_SCANNED
                )
                members = [member async for member, _ in found] if waits else []
            for start in range(0, len(members), _SCANNED):
                some = members[start : start + _SCANNED]
                await self.run("forget", keys, (request_id, *some))
        after = "-"
        while letters := await self._dead(after, "+", _SCANNED):
            after = f"({letters[-1].entry_id}"
            mine = [one.entry_id for one in letters if one.key.startswith(f"{request_id}/")]
            if mine:
                with translated():
                    await self._client.xdel(DEAD, *mine)

    async def lengths(self) -> dict[str, int]:
        """Entries in each shared mailbox and in this replica's lanes, by short name."""
        names = {
            "fetch": FETCH,
            "fetch:priority": FETCH_PRIORITY,
            "copies": COPIES,
            "notify": NOTIFY,
            "compress": compress_lane(self.replica),
            "upload": upload_lane(self.replica),
            "dead": DEAD,
        }
        with translated():
            return {short: int(await self._client.xlen(key)) for short, key in names.items()}

    async def check(self) -> str:
        """Whether Redis takes writes and never evicts.

        Returns:
            ``ok``, and what cannot be known.

        Raises:
            ServiceError: UNAVAILABLE, with what is wrong.
        """
        with translated():
            # Refused, as work is, by a Redis that is full, a replica, or one without replicas.
            await self._client.set(f"{TAG}:check:{self.replica}", 1, px=_CHECK_MS)
        policy = await self._eviction_policy()
        if policy not in {None, "noeviction"}:
            raise ServiceError(
                ErrorCode.UNAVAILABLE, "Redis must run with maxmemory-policy noeviction."
            )
        return "ok" if policy else "ok, eviction policy unknown (INFO/CONFIG not allowed)"

    async def _eviction_policy(self) -> str | None:
        """What Redis does when it is full; None if it does not tell."""
        with translated():
            for ask in (  # managed services forbid the second, some users may do neither
                lambda: self._client.info("memory"),
                lambda: self._client.config_get("maxmemory-policy"),
            ):
                # Each service has its own words for that; what passes by itself, the write met.
                with contextlib.suppress(ResponseError):
                    told = await ask()
                    policy = told.get("maxmemory_policy") or told.get("maxmemory-policy")
                    if policy:
                        return str(policy)
        return None

    def _low_water(self, mailbox: str) -> int:
        return self._settings.window // 2 if mailbox == FETCH else -1


class Inbox:
    """The reading end of one mailbox, over a blocking connection of its own.

    A blocking read is never cancelled: entries it was about to deliver would be stranded. Its
    owner stops calling ``take`` and waits out the last one, ``BLOCK_MS`` at most.

    Args:
        reader: used by this inbox alone.
        mailboxes: to create the group when it is missing.
        name: the mailbox.
    """

    def __init__(self, reader: Reader, mailboxes: Mailboxes, name: str) -> None:
        self._reader = reader
        self._mailboxes = mailboxes
        self.name = name
        self._in_hand: set[str] = set()
        self._log = logs.get("mailboxes").bind(mailbox=name)
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
                    self._mailboxes.replica,
                    {self.name: "0" if suspect else ">"},
                    count=None if suspect else count,
                    block=None if suspect else block_ms,
                )
            except ResponseError as error:
                if code_of(error) not in {"NOGROUP", "UNBLOCKED"}:
                    raise
                # Redis was wiped: whatever is in the stream now, its first entry included, is ours.
                await self._mailboxes.ensure_group(self.name)
                await self._mailboxes.beat()
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


class Bell:
    """What the dealer waits at: rung by new requests and by a mailbox that runs low."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def wait(self, timeout_s: float) -> str:
        """Wait until rung, ``timeout_s`` at most.

        Returns:
            ``news`` if there is new work, ``low`` if a mailbox runs low, nothing if not rung.
        """
        with translated():
            rung = await self._reader.client.blpop([WAKE], timeout=timeout_s)
        return str(rung[1]) if rung else ""

    async def close(self) -> None:
        """Close the connection."""
        await self._reader.close()
