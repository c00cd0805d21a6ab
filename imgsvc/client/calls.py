"""The calls of a service, each repeated while that may help and cannot do harm."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import aiohttp
import orjson
from yarl import URL

from imgsvc.client.files import replacing
from imgsvc.client.server import PASSING, CallError, Json, Server
from imgsvc.client.sources import Upload

PATIENCE_S = 60.0
_WAITS_S = (0.2, 0.5, 1.0, 2.0, 5.0)  # between tries; the last is repeated
_PAGE = 500
_CHUNK = 64 * 1024
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=120)
_LOST = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError)


class Calls:
    """What a client can ask of a service.

    Args:
        server: which one.
        say: called with a line for the user when a call has to be repeated.
        patience_s: for how long a call is repeated.
    """

    def __init__(
        self, server: Server, say: Callable[[str], None], patience_s: float = PATIENCE_S
    ) -> None:
        self._server = server
        self._say = say
        self._patience_s = patience_s
        headers = {"Authorization": f"Bearer {server.key}"} if server.key else {}
        self._session = aiohttp.ClientSession(headers=headers, timeout=_TIMEOUT, trust_env=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def submit(self, upload: Upload, key: str) -> str:
        """Post products; with the same idempotency key they are accepted once.

        Returns:
            The id of the request.
        """
        answer = await self._json(
            "POST",
            self._server.at("api", "upload"),
            headers={"Idempotency-Key": key},
            body=upload.body,
        )
        return str(answer["requestId"])

    async def status(self, request_id: str) -> Json:
        """The status object."""
        return await self._json("GET", self._server.at("status", request_id))

    async def report(self, request_id: str) -> Json:
        """What was saved."""
        return await self._json("GET", self._server.at("api", "requests", request_id, "report"))

    async def retry(self, request_id: str, wanted: Json) -> Json:
        """Have failed images worked on again."""
        # Repeated after its answer was lost, it could find the failures of the second try.
        return await self._json(
            "POST",
            self._server.at("api", "requests", request_id, "retry"),
            body=lambda: {"json": wanted},
            repeatable=False,
        )

    async def cancel(self, request_id: str) -> Json:
        """Stop what has not been done."""
        return await self._json("POST", self._server.at("api", "requests", request_id, "cancel"))

    async def erase(self, request_id: str) -> Json:
        """Have everything about a request deleted."""
        return await self._json("DELETE", self._server.at("api", "requests", request_id))

    def images(self, request_id: str, **query: str) -> AsyncIterator[Json]:
        """All images in input order."""
        return self._pages(
            self._server.at("api", "requests", request_id, "images"), "images", query
        )

    async def requests(self, most: int, **query: str) -> AsyncIterator[Json]:
        """So many requests, newest first."""
        query["limit"] = str(min(most, _PAGE))
        async for found in self._pages(self._server.at("api", "requests"), "requests", query):
            yield found
            most -= 1
            if not most:
                return

    async def download(self, request_id: str, file: Path, **query: str) -> None:
        """The report as CSV, into a file that is there in full or not at all."""
        url = self._server.at("download", request_id).with_query(query)

        async def save(response: aiohttp.ClientResponse) -> None:
            with replacing(file) as out:
                async for chunk in response.content.iter_chunked(_CHUNK):
                    out.write(chunk)

        await self._send("GET", url, save)

    async def _pages(self, url: URL, name: str, query: Mapping[str, str]) -> AsyncIterator[Json]:
        cursor: dict[str, str] = {}
        while True:
            page = await self._json("GET", url.with_query({"limit": str(_PAGE), **query, **cursor}))
            for entry in page[name]:
                yield entry
            if not page["nextCursor"]:
                return
            cursor = {"cursor": page["nextCursor"]}

    async def _json(self, method: Literal["GET", "POST", "DELETE"], url: URL, **more: Any) -> Json:
        found: Json = {}

        async def read(response: aiohttp.ClientResponse) -> None:
            found.update(_parsed(await response.read()))

        await self._send(method, url, read, **more)
        return found

    async def _send(
        self,
        method: str,
        url: URL,
        take: Callable[[aiohttp.ClientResponse], Any],
        *,
        headers: Mapping[str, str] | None = None,
        body: Callable[[], Json] = dict,
        repeatable: bool = True,
    ) -> None:
        """One call, repeated while it fails for reasons that pass.

        Args:
            method: of HTTP.
            url: where to.
            take: reads the answer, anew for each try.
            headers: more of them.
            body: makes the arguments for aiohttp that hold the body, anew for each try.
            repeatable: whether it does no harm if a try worked out whose answer was lost.
        """
        deadline = time.monotonic() + self._patience_s
        tries = 0
        while True:
            retry_after_s = 0.0
            try:
                async with self._session.request(
                    method, url, headers=headers, allow_redirects=False, **body()
                ) as response:
                    if response.status < 300:  # noqa: PLR2004 - redirects are not followed
                        await take(response)
                        return
                    problem = _refusal(response, await response.read())
                    if response.status not in PASSING:
                        raise problem
                    retry_after_s = _seconds(response.headers.get("Retry-After", ""))
            except aiohttp.ClientSSLError as error:
                raise CallError(f"{url.origin()} cannot be trusted: {error}") from error
            except _LOST as error:
                problem = CallError(f"{url.origin()} cannot be reached: {error or 'timed out'}")
                if not (repeatable or isinstance(error, aiohttp.ClientConnectorError)):
                    raise problem from error
            wait_s = _WAITS_S[min(tries, len(_WAITS_S) - 1)]
            wait_s = max(retry_after_s, wait_s) * random.uniform(1.0, 1.2)  # noqa: S311 - no secret
            if time.monotonic() + wait_s > deadline:
                raise problem
            tries += 1
            if tries == 1:
                self._say(f"{problem} Trying again for {self._patience_s:.0f} s.")
            await asyncio.sleep(wait_s)


def _refusal(response: aiohttp.ClientResponse, body: bytes) -> CallError:
    problem = _parsed(body) if "json" in response.content_type else {}
    text = problem.get("detail") or f"{response.url.origin()} answered {response.status}."
    if response.status in (401, 403):
        text += " Give a key with --key or in IMGSVC_KEY."
    if location := response.headers.get("Location"):
        text += f" It redirects to {location}; is that the --server?"
    return CallError(
        text,
        status=response.status,
        code=problem.get("code", ""),
        errors=problem.get("errors") or (),
    )


def _parsed(body: bytes) -> Json:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise CallError("What answers there is not imgsvc: its answer is not JSON.")
    return found


def _seconds(retry_after: str) -> float:
    return float(retry_after) if retry_after.isdecimal() else 0.0
