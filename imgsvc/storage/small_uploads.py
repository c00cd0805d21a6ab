"""Create small objects from the event loop, without Google's library and without a thread.

This is the one call to the bucket that every image needs. Most results are small, and for these a
thread and the library cost more CPU than all else that the service does for an image outside its
workers. Whatever does not succeed at once is left to the library, which handles retries, errors and
expired tokens. That is safe although this call may have created the object: the library creates it
only if there is none of that name, and adopts it otherwise.
"""

from __future__ import annotations

import base64
import io
import secrets
import ssl
import urllib.parse
from pathlib import Path

import aiohttp
import google_crc32c
import orjson
import requests.utils

from imgsvc.runtime.settings import Gcs
from imgsvc.storage.objects import NewObject, Stored

_SMALL_BYTES = 4_000_000  # reading it and its checksum take three milliseconds
_AT_ONCE_BYTES = 1_000_000  # larger bodies are sent in pieces, so that other tasks run in between
_CREATED = 200


class SmallUploads:
    """Creates small objects.

    Args:
        session: the library's, whose credentials, proxy and certificates are used.
        endpoint: address of the API.
        settings: which bucket, and limits.
    """

    def __init__(self, session: requests.Session, endpoint: str, settings: Gcs) -> None:
        self._settings = settings
        self._credentials = getattr(session, "credentials", None)  # an emulator asks for none
        bucket = urllib.parse.quote(settings.bucket, safe="")
        self._url = (
            f"{endpoint}/upload/storage/v1/b/{bucket}/o?uploadType=multipart&ifGenerationMatch=0"
        )
        self._proxy = session.proxies.get(urllib.parse.urlsplit(endpoint).scheme)
        trusted = (
            session.verify
            if isinstance(session.verify, str)
            else requests.utils.DEFAULT_CA_BUNDLE_PATH
        )
        self._boundary = secrets.token_hex(16)  # who makes an image cannot guess it
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=settings.threads, ssl=ssl.create_default_context(cafile=trusted)
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=settings.timeout_s),
        )

    async def create(self, new: NewObject) -> Stored | None:
        """Store a small file as a new object.

        Args:
            new: the object.

        Returns:
            What was stored; None if the library has to do it.

        Raises:
            FileNotFoundError: the file is gone.
        """
        data = _small(new.path)
        if data is None or not (self._credentials is None or self._credentials.valid):
            return None
        headers = {"Content-Type": f"multipart/related; boundary={self._boundary}"}
        if self._credentials:
            self._credentials.apply(headers)
        body = self._body(new, data)
        whole = body if len(body) <= _AT_ONCE_BYTES else io.BytesIO(body)
        try:
            async with self._session.post(
                self._url, data=whole, headers=headers, proxy=self._proxy, allow_redirects=False
            ) as response:
                if response.status != _CREATED:
                    return None
                created = orjson.loads(await response.read())
        except (aiohttp.ClientError, OSError):
            return None
        return Stored(int(created["size"]), str(created["crc32c"]))

    def _body(self, new: NewObject, data: bytes) -> bytes:
        """The object's description and its content, as multipart/related (RFC 2387)."""
        checksum = google_crc32c.value(data).to_bytes(4, "big")
        description = {
            "name": new.name,
            "contentType": new.content_type,
            "cacheControl": self._settings.cache_control,
            "metadata": new.metadata,
            "crc32c": base64.b64encode(checksum).decode(),
        }
        boundary = b"--" + self._boundary.encode()
        return b"\r\n".join(
            (
                boundary,
                b"Content-Type: application/json; charset=UTF-8",
                b"",
                orjson.dumps(description),
                boundary,
                b"Content-Type: " + new.content_type.encode(),
                b"",
                data,
                boundary + b"--",
                b"",
            )
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


def _small(path: Path) -> bytes | None:
    """The content of a small file. It was written a moment ago, so reading it waits for no disk."""
    return path.read_bytes() if path.stat().st_size <= _SMALL_BYTES else None
