"""What must be true once the work is done, whatever happened meanwhile.

I1  every accepted request ends, with every image in one terminal state, the right one
I2  a request ends once
I3  each success has one object with the right picture; nothing else is in the bucket
I4  a webhook is sent at least once, at most five times a cycle, under one id, signed
I5  nothing is left: in mailboxes, marks, delays, spools; of replicas that are gone; of uploads
    that were refused
I6  live replicas need little memory and few files, and answer quickly
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import urllib.parse
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import psutil
from redis.exceptions import ResponseError

from imgsvc.demo.look import Look
from imgsvc.mailboxes.keys import DEAD, REPLICAS, SHARED
from tests.chaos.replicas import Replica
from tests.chaos.stack import Stack
from tests.chaos.world import Posted, Told
from tests.support import TERMINAL

ATTEMPTS = 5
RSS_BYTES = 400 << 20
FILES = 200
HEALTH_S = 1.0
KEPT = {*SHARED, DEAD}

JSON = dict[str, Any]


async def check(
    stack: Stack, posted: Sequence[Posted], within_s: float = 30.0, health_s: float = HEALTH_S
) -> list[str]:
    """Wait until the work is done, then judge.

    Args:
        stack: with at least one replica at work.
        posted: all uploads since the last check.
        within_s: how long the work may take; what is not done then is a violation.
        health_s: how long a replica may take to say that it lives.

    Returns:
        One line for each violation.
    """
    requests = await _ended(stack, posted, within_s)
    by_tag = {one.tag: one for one in posted}
    violations = [
        f"I1 {one.tag}: accepted as {one.accepted}, which does not exist"
        for one in posted
        if one.accepted and one.accepted not in requests and not one.erased
    ]
    violations += [line async for line in _judge_erased(stack, posted)]
    found_by_tag: Counter[str] = Counter()
    expected: dict[str, tuple[JSON, bytes]] = {}  # object -> its image, its source
    for request_id, status in requests.items():
        images = await _images(stack, request_id)
        tag = images[0]["serialNumber"].partition(".")[0] if images else ""
        if tag not in by_tag:
            violations.append(f"I1 {request_id}: {status} with {len(images)} images: not ours")
            continue
        one = by_tag[tag]
        found_by_tag[tag] += 1
        violations += _judge_images(one, status, images)
        violations += _judge_copies(one, status, images)
        violations += _judge_webhook(one, status, await _deliveries(stack, request_id))
        for image in images:
            if image["outputUrl"]:
                source = one.products[image["product"]][image["index"]].data
                expected[_object(stack, image["outputUrl"])] = image, source or b""
    violations += [
        f"I2 {tag}: {times} requests for one key"
        for tag, times in found_by_tag.items()
        if times > 1 and by_tag[tag].keyed
    ]
    violations += await _rest(stack, within_s)
    violations += [line async for line in _judge_objects(stack, expected, requests)]
    for replica in stack.replicas:
        if replica.at_work:
            violations += await _judge_replica(replica, health_s)
    stack.settled.update(requests)
    stack.settled.update(one.accepted for one in posted if one.accepted)
    return violations


async def _ended(stack: Stack, posted: Sequence[Posted], within_s: float) -> dict[str, JSON]:
    """All requests that were not checked before, when they have ended or time is up."""
    deadline = time.monotonic() + within_s
    wanted = {one.accepted for one in posted if one.accepted and not one.erased}
    while True:
        found = await _requests(stack)
        open_ = [s for s in found.values() if s["status"] not in TERMINAL or _untold(s)]
        if (not open_ and wanted <= found.keys()) or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.1)


def _untold(status: JSON) -> bool:
    return bool(status["webhook"]) and status["webhook"]["status"] == "PENDING"


async def _judge_erased(stack: Stack, posted: Sequence[Posted]) -> AsyncIterator[str]:
    """I1 of requests that their client had erased: it cannot see them any more."""
    replica = next(one for one in stack.replicas if one.at_work)
    for one in posted:
        if one.erased:
            status, answer = await replica.call("GET", f"/status/{one.accepted}", within_s=20)
            if status != 410:
                yield f"I1 {one.tag} ({one.accepted}): erased, but {status} {answer}"


async def _requests(stack: Stack) -> dict[str, JSON]:
    found: dict[str, JSON] = {}
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "1000", **({"cursor": cursor} if cursor else {})}
        page = await _get(stack, "/api/requests", params=query)
        found |= {one["requestId"]: one for one in page["requests"]}
        cursor = page["nextCursor"]
    return {one: status for one, status in found.items() if one not in stack.settled}


async def _images(stack: Stack, request_id: str) -> list[JSON]:
    page = await _get(stack, f"/api/requests/{request_id}/images", params={"limit": "1000"})
    images: list[JSON] = page["images"]
    return images


async def _deliveries(stack: Stack, request_id: str) -> list[JSON]:
    attempts: list[JSON] = (await _get(stack, f"/api/requests/{request_id}/deliveries"))["attempts"]
    return attempts


async def _get(stack: Stack, path: str, **request: Any) -> JSON:
    replica = next(one for one in stack.replicas if one.at_work)
    status, answer = await replica.call("GET", path, within_s=20, **request)
    assert status == 200, f"{path}: {status} {answer}"
    found: JSON = answer
    return found


def _judge_images(one: Posted, status: JSON, images: list[JSON]) -> Iterator[str]:
    """I1, and I2 as far as the counters tell."""
    where = f"{one.tag} ({status['requestId']})"
    cancelled = one.cancelled and status["requestId"] == one.accepted
    failed = sum(image["status"] == "FAILED" for image in images)
    done = sum(image["status"] == "COMPLETED" for image in images)
    dropped = sum(image["status"] == "CANCELLED" for image in images)
    if not len(images) == one.images == done + failed + dropped or (dropped and not cancelled):
        yield (
            f"I1 {where}: {one.images} images posted, {done} completed, {failed} failed, "
            f"{dropped} cancelled"
        )
    outcome = "COMPLETED" if not failed else "PARTIAL" if done else "FAILED"
    if cancelled:
        outcome = "CANCELLED"
    truth = {
        "status": outcome,
        "totalImages": one.images,
        "processedImages": one.images,
        "failedImages": failed,
        "totalProducts": len(one.products),
        "processedProducts": len(one.products),
        "bytesOut": sum(image["bytesOut"] or 0 for image in images),
    }
    told = {key: status[key] for key in truth}
    if told != truth:
        yield f"I1 {where}: status says {told}, its images {truth}"
    for image in images:
        error = image["error"]["code"] if image["error"] else None
        expected = {one.products[image["product"]][image["index"]].error}
        if image["status"] == "CANCELLED":
            expected = {None}
        elif status["requestId"] != one.accepted:
            # The same upload, whose answer was lost: it is not the one that was retried.
            mended = (image["product"], image["index"]) in one.mended
            expected |= {"FETCH_STATUS"} if mended else set()
        if error not in expected | one.failures:
            place = f"{image['product']}-{image['index']}"
            yield f"I1 {where} {place}: {image['status']} {error}, not {expected}"


def _judge_copies(one: Posted, status: JSON, images: list[JSON]) -> Iterator[str]:
    """I1 of images with the same address: they end alike, but for what was cancelled."""
    ends: dict[str, set[tuple[Any, ...]]] = {}
    for image in images:
        if image["status"] != "CANCELLED":
            result = tuple(
                image[key] for key in ("status", "bytesOut", "format", "width", "height")
            )
            error = image["error"]["code"] if image["error"] else None
            ends.setdefault(image["inputUrl"], set()).add((*result, error))
    for url, different in ends.items():
        if len(different) > 1:
            yield f"I1 {one.tag} ({status['requestId']}): {url} ended as {different}"


def _judge_webhook(one: Posted, status: JSON, deliveries: list[JSON]) -> Iterator[str]:
    """I4, and I2 as far as the receiver can tell."""
    if one.webhook is None:
        return
    request_id, told = status["requestId"], status["webhook"]
    where = f"{one.tag} ({request_id})"
    here = [each for each in one.webhook.told if each.data["requestId"] == request_id]
    delivered = [each for each in here if each.status is not None and each.status < 300]
    recorded = [each for each in deliveries if each["error"] is None]
    if len(here) > ATTEMPTS * one.cycles:
        yield f"I4 {where}: {len(here)} attempts in {one.cycles} cycles"
    first = f"msg_{request_id}"
    ids = {first} | {f"{first}_{cycle}" for cycle in range(2, one.cycles + 1)}
    if strange := {each.message_id for each in here} - ids:
        yield f"I4 {where}: unknown ids {strange}"
    if not all(each.genuine for each in here):
        yield f"I4 {where}: a signature that is not valid"
    if told["status"] == "PENDING":
        yield f"I4 {where}: never announced: {told}"
    if told["status"] == "DELIVERED" and not delivered:
        yield f"I4 {where}: called delivered, but was not"
    if told["status"] == "FAILED" and told["attempts"] < ATTEMPTS and not one.failures:
        yield f"I4 {where}: given up after {told['attempts']} attempts"
    if len(recorded) > one.cycles:
        yield f"I2 {where}: delivered {len(recorded)} times by the record"
    yield from _judge_told(where, status, here)


def _judge_told(where: str, status: JSON, here: list[Told]) -> Iterator[str]:
    """A receiver must never hear of two different ends under one id, and of the last in the end."""
    keys = ("status", "processedImages", "failedImages", "bytesOut")
    ends: dict[str, set[tuple[Any, ...]]] = {}
    for each in here:
        ends.setdefault(each.message_id, set()).add(tuple(each.data[key] for key in keys))
    for message_id, told in ends.items():
        if len(told) > 1:
            yield f"I2 {where}: {message_id} announced {told}"
    last = tuple(status[key] for key in keys)
    if status["webhook"]["status"] == "DELIVERED" and last not in set().union(*ends.values()):
        yield f"I2 {where}: announced as {ends}, ended as {status}"


async def _judge_objects(
    stack: Stack, expected: dict[str, tuple[JSON, bytes]], requests: dict[str, JSON]
) -> AsyncIterator[str]:
    """I3."""
    stored = {
        name: size
        for name, size in (await stack.objects()).items()
        if name.partition("/")[0] not in stack.settled
    }
    for name in stored.keys() - expected.keys():
        request = requests.get(name.partition("/")[0])
        yield f"I3 {name}: an object that no image has, of {request or 'no request'}"
    for name in sorted(expected.keys() - stored.keys()):
        yield f"I3 {name}: there is no such object"
    for name in sorted(expected.keys() & stored.keys()):
        image, source = expected[name]
        url = f"{stack.servers.endpoints.gcs_url}/{stack.bucket}/{name}"
        async with stack.session.get(url) as response:
            data = await response.read()
        if problem := await asyncio.to_thread(_judge_picture, data, image, source):
            yield f"I3 {name}: {problem}"


def _judge_picture(data: bytes, image: JSON, source: bytes) -> str | None:
    if len(data) != image["bytesOut"]:
        return f"{len(data)} bytes, recorded are {image['bytesOut']}"
    try:
        result, original = Look(data), Look(source)
        sizes = {result.shown.size, original.shown.size, (image["width"], image["height"])}
    except OSError as error:
        return f"cannot be decoded: {error}"
    if len(sizes) > 1:
        return f"different sizes: {sizes}"
    return None if result.resembles(original) else "another picture"


def _object(stack: Stack, output_url: str) -> str:
    return urllib.parse.unquote(output_url.partition(f"/{stack.bucket}/")[2])


async def _rest(stack: Stack, within_s: float) -> list[str]:
    """I5: what is left, after waiting for it to go."""
    deadline = time.monotonic() + within_s
    left = ["I5 never looked at"]
    while left and time.monotonic() < deadline:
        with contextlib.suppress(ResponseError):  # a key went while it was looked at
            left = [line async for line in _left(stack)]
        if left:
            await asyncio.sleep(0.1)
    return left


async def _left(stack: Stack) -> AsyncIterator[str]:
    live = {one.id for one in stack.replicas if one.running}
    async for key in stack.redis.scan_iter("{imgsvc}:*"):
        kind = await stack.redis.type(key)
        if kind == "stream":
            async for line in _left_in_stream(stack, key, live):
                yield line
        elif kind == "zset" and key != REPLICAS:
            yield f"I5 in {key}: {await stack.redis.zrange(key, 0, 5)}"
    if (registered := set(await stack.redis.zrange(REPLICAS, 0, -1))) != live:
        yield f"I5 registered are {registered}, alive {live}"
    async for line in _left_in_ledger(stack):
        yield line
    for replica in live:
        folder = stack.spool / replica
        if files := [path.name for path in folder.iterdir() if path.name != ".lock"]:
            yield f"I5 in the spool of {replica}: {files}"


async def _left_in_ledger(stack: Stack) -> AsyncIterator[str]:
    if orphans := await stack.orphans():
        yield f"I5 products of uploads that were not accepted, or erased: {orphans}"
    if memories := await stack.memories_of_erased():
        yield f"I5 remembered of erased requests: {memories}"
    if unswept := await stack.unswept():
        yield f"I5 requests to be erased, or swept up after: {unswept}"


async def _left_in_stream(stack: Stack, key: str, live: set[str]) -> AsyncIterator[str]:
    if length := await stack.redis.xlen(key):
        yield f"I5 {length} entries in {key}"
    for group in await stack.redis.xinfo_groups(key):
        if group["pending"]:
            yield f"I5 {group['pending']} pending in {key}"
        consumers = await stack.redis.xinfo_consumers(key, group["name"])
        if strangers := {one["name"] for one in consumers} - live:
            yield f"I5 consumers of {key} that are gone: {strangers}"
    if key not in KEPT and key.rpartition(":")[2] not in live:
        yield f"I5 {key}: a lane of a replica that is gone"


async def _judge_replica(replica: Replica, health_s: float) -> list[str]:
    """I6 at this moment."""
    process = psutil.Process(replica.process.pid)
    violations = []
    if (rss := process.memory_info().rss) > RSS_BYTES:
        violations.append(f"I6 {replica.name}: {rss >> 20} MB")
    if (files := await replica.open_files()) > FILES:
        violations.append(f"I6 {replica.name}: {files} open files")
    started = time.monotonic()
    await replica.call("GET", "/healthz")
    if (latency_s := time.monotonic() - started) > health_s:
        violations.append(f"I6 {replica.name}: /healthz took {latency_s:.2f} s")
    return violations
