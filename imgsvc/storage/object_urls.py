"""Public and signed URLs of stored objects."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from google.cloud import storage

from imgsvc.runtime.settings import Gcs

_SIGNED_AT_ONCE = 20  # 1 ms of CPU each


class ObjectUrls:
    """Makes the URLs at which objects can be fetched.

    Args:
        bucket: the library's, where the objects are.
        settings: whether URLs are signed, and how long they are valid.
    """

    def __init__(self, bucket: storage.Bucket, settings: Gcs) -> None:
        self._bucket = bucket
        self._settings = settings
        # Signing waits for nothing, so it has a thread apart from those that wait for the bucket.
        self._signing = ThreadPoolExecutor(1, thread_name_prefix="signing")

    async def of(self, names: Sequence[str]) -> list[str]:
        """The URLs of some objects, made anew at each call: signed ones expire."""
        if not self._settings.signed_urls:
            return [self._public(name) for name in names]
        signed: list[str] = []
        loop = asyncio.get_running_loop()
        # A few at a time, so that one long page does not keep a short one waiting.
        for start in range(0, len(names), _SIGNED_AT_ONCE):
            some = names[start : start + _SIGNED_AT_ONCE]
            signed += await loop.run_in_executor(self._signing, self._sign, some)
        return signed

    def _public(self, name: str) -> str:
        if self._settings.public_url:
            return f"{self._settings.public_url.rstrip('/')}/{urllib.parse.quote(name, safe='/~')}"
        return str(self._bucket.blob(name).public_url)

    def _sign(self, names: Sequence[str]) -> list[str]:
        valid = timedelta(seconds=self._settings.signed_url_ttl_s)
        return [
            self._bucket.blob(name).generate_signed_url(version="v4", expiration=valid)
            for name in names
        ]

    def close(self) -> None:
        """Stop; nobody waits for URLs any more."""
        self._signing.shutdown(wait=False, cancel_futures=True)
