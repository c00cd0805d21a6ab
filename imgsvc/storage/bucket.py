"""The bucket: Google Cloud Storage.

Google's library is synchronous and safe to share between threads, so it runs in threads of its own.
Only small objects are created without it. An object is created only if there is none of that name:
a repeat finds the one that is there and adopts it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from google.api_core import exceptions as api_errors
from google.cloud.storage import Blob
from google.cloud.storage.retry import DEFAULT_RETRY

from imgsvc.domain.errors import ErrorCode
from imgsvc.runtime.failpoints import NO_FAILPOINTS, Failpoints
from imgsvc.runtime.settings import Gcs
from imgsvc.storage.bucket_errors import BucketError, reason, translated_errors
from imgsvc.storage.google_client import connect
from imgsvc.storage.object_urls import ObjectUrls
from imgsvc.storage.objects import NewObject, Stored
from imgsvc.storage.small_uploads import SmallUploads

T = TypeVar("T")


class Bucket:
    """Where results are stored.

    Args:
        settings: which bucket, and how to reach it.
        failpoints: for tests of faults.

    Raises:
        SettingsError: there are no usable credentials.
    """

    def __init__(self, settings: Gcs, failpoints: Failpoints = NO_FAILPOINTS) -> None:
        self._settings = settings
        self._failpoints = failpoints
        self._client, session = connect(settings)
        self._bucket = self._client.bucket(settings.bucket)
        self._limits: dict[str, Any] = {  # of time, for each call
            "timeout": settings.timeout_s,
            "retry": DEFAULT_RETRY.with_timeout(settings.retry_s),
        }
        self._threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="gcs")
        self._urls = ObjectUrls(self._bucket, settings)
        self._small_uploads = SmallUploads(session, self._client.api_endpoint, settings)

    async def create(self, name: str, path: Path, content_type: str, note: str) -> Stored:
        """Store a file as a new object; an object of that name is adopted as it is.

        Args:
            name: of the object.
            path: of the file.
            content_type: as it is to be served.
            note: how the codec made it, kept as metadata of the object.

        Raises:
            FileNotFoundError: the file is gone.
            BucketError: UNAVAILABLE or STORAGE_REJECTED.
        """
        new = NewObject(name, path, content_type, note)
        with self._failpoints.around("bucket.create"):
            if stored := await self._small_uploads.create(new):
                return stored
            return await self._run(self._create, new)

    def _create(self, new: NewObject) -> Stored:
        blob = self._bucket.blob(new.name)
        blob.cache_control = self._settings.cache_control
        blob.metadata = new.metadata
        try:
            blob.upload_from_filename(
                str(new.path),
                content_type=new.content_type,
                if_generation_match=0,
                checksum="crc32c",
                **self._limits,
            )
        except api_errors.PreconditionFailed:
            blob.reload(**self._limits)
        return _stored(blob)

    async def names(self, prefix: str, limit: int, after: str = "") -> list[str]:
        """The names of objects that begin with ``prefix``, in order.

        Args:
            prefix: what they begin with.
            limit: how many at most.
            after: only names that follow this one.

        Raises:
            BucketError: UNAVAILABLE or STORAGE_REJECTED.
        """
        return await self._run(self._names, prefix, limit, after)

    def _names(self, prefix: str, limit: int, after: str) -> list[str]:
        blobs = self._bucket.list_blobs(
            prefix=prefix,
            start_offset=f"{after}\0" if after else None,
            max_results=limit,
            fields="items(name),nextPageToken",
            **self._limits,
        )
        return [blob.name for blob in blobs]

    async def delete(self, names: Sequence[str]) -> None:
        """Delete objects; one that is not there counts as deleted.

        Only some of the threads do this, so that uploads go on meanwhile.

        Raises:
            BucketError: STORAGE_REJECTED, with the reason, if the bucket keeps some of them, such
                as those under a hold or a retention policy; the others are deleted. UNAVAILABLE;
                then some may be deleted, and some not.
        """
        share = max(1, self._settings.threads // 4)
        with self._failpoints.around("bucket.delete"):
            refused = await asyncio.gather(
                *(self._run(self._delete, names[i::share]) for i in range(min(share, len(names))))
            )
        if reasons := [each for some in refused for each in some]:
            kept = f"The bucket keeps {len(reasons)} of {len(names)} objects; the first: "
            raise BucketError(ErrorCode.STORAGE_REJECTED, kept + reasons[0])

    def _delete(self, names: Sequence[str]) -> list[str]:
        """Delete objects one after the other, and give the reasons for those that are kept."""
        reasons = []
        for name in names:
            try:
                self._bucket.delete_blob(name, **self._limits)
            except api_errors.NotFound:
                continue
            except (api_errors.TooManyRequests, api_errors.Unauthorized):
                raise  # about the call, not about the object
            except api_errors.ClientError as error:
                reasons.append(reason(error))
        return reasons

    async def copy(self, source: str, name: str) -> Stored | None:
        """Let the bucket copy an object; one that has the new name already is adopted as it is.

        Args:
            source: the name of the object to copy.
            name: of the copy.

        Returns:
            The copy; None if there is no such source.

        Raises:
            BucketError: UNAVAILABLE or STORAGE_REJECTED.
        """
        with self._failpoints.around("bucket.copy"):
            return await self._run(self._copy, source, name)

    def _copy(self, source: str, name: str) -> Stored | None:
        original = self._bucket.blob(source)
        try:
            # The emulator ignores the condition and replaces what is there.
            blob = self._bucket.copy_blob(
                original, self._bucket, name, if_generation_match=0, **self._limits
            )
        except api_errors.PreconditionFailed:
            blob = self._bucket.blob(name)
            blob.reload(**self._limits)
        except api_errors.NotFound:
            return None
        return _stored(blob)

    async def urls(self, names: Sequence[str]) -> list[str]:
        """The URLs at which stored objects can be fetched; signed ones are made anew each time."""
        return await self._urls.of(names)

    async def check(self) -> None:
        """Raise BucketError unless the bucket exists and lets us in."""
        await self._run(self._check)

    def _check(self) -> None:
        # Listing objects needs fewer rights than reading the bucket's settings.
        next(iter(self._bucket.list_blobs(max_results=1, timeout=5, retry=None)), None)

    async def ensure(self) -> None:
        """Create the bucket if it is missing; for emulators, where nobody else does it."""

        def create() -> None:
            try:
                self._client.create_bucket(self._bucket)
            except api_errors.Conflict:
                return

        await self._run(create)

    async def close(self) -> None:
        """Stop; calls that are under way are given up."""
        await self._small_uploads.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._urls.close()
        self._client.close()

    async def _run(self, function: Callable[..., T], *args: Any) -> T:
        """Call the library in one of the threads.

        Raises:
            BucketError: UNAVAILABLE or STORAGE_REJECTED.
        """
        with translated_errors():
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, function, *args)


def _stored(blob: Blob) -> Stored:
    return Stored(int(blob.size), str(blob.crc32c))
