"""The one call to the bucket that is made for each image, without the library and without a thread.

Most results are small, and for these a thread and the library's layers cost more than all else that
the parent process does for an image. So a small one is posted from the event loop. Whatever does
not work out at once is the library's business, which knows of retries, errors and old tokens: as an
object is created only if there is none of that name, it may have been created here.
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

_SMALL_BYTES = 4_000_000  # read and summed up in three milliseconds
_AT_ONCE_BYTES = 1_000_000  # larger bodies go out in pieces, so that others have a turn between
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
        self._boundary = secrets.token_hex(16)  # nobody who makes images can know it
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=settings.threads, ssl=ssl.create_default_context(cafile=trusted)
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=settings.timeout_s),
        )

    async def create(
        self, name: str, path: Path, content_type: str, note: str
    ) -> tuple[int, str] | None:
        """Store a small file as a new object.

        Args:
            name: of the object.
            path: of the file.
            content_type: as it is to be served.
            note: how the codec came to it, kept as metadata of the object.

        Returns:
            Its size in bytes and its checksum; None if the library is to do it.

        Raises:
            FileNotFoundError: the file is gone.
        """
        data = _small(path)
        if data is None or not (self._credentials is None or self._credentials.valid):
            return None
        headers = {"Content-Type": f"multipart/related; boundary={self._boundary}"}
        if self._credentials:
            self._credentials.apply(headers)
        body = self._body(name, data, content_type, note)
        whole = body if len(body) <= _AT_ONCE_BYTES else io.BytesIO(body)
        try:
            async with self._session.post(
                self._url, data=whole, headers=headers, proxy=self._proxy, allow_redirects=False
            ) as response:
                if response.status != _CREATED:
                    return None
                told = orjson.loads(await response.read())
        except (aiohttp.ClientError, OSError):
            return None
        return int(told["size"]), str(told["crc32c"])

    def _body(self, name: str, data: bytes, content_type: str, note: str) -> bytes:
        """The object's description and its content (RFC 2387)."""
        checksum = google_crc32c.value(data).to_bytes(4, "big")
        described = {
            "name": name,
            "contentType": content_type,
            "cacheControl": self._settings.cache_control,
            "metadata": {"imgsvc-note": note},
            "crc32c": base64.b64encode(checksum).decode(),
        }
        boundary = b"--" + self._boundary.encode()
        return b"\r\n".join(
            (
                boundary,
                b"Content-Type: application/json; charset=UTF-8",
                b"",
                orjson.dumps(described),
                boundary,
                b"Content-Type: " + content_type.encode(),
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
    """What is in a small file; it was written a moment ago, so that no disk has to be asked."""
    return path.read_bytes() if path.stat().st_size <= _SMALL_BYTES else None
