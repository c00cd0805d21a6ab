"""The bucket: Google Cloud Storage.

The client library is synchronous and safe to share between threads, so it runs in threads of its
own; only small objects are created without it. They are created only if there is none of that
name: a repeat finds what is there and adopts it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import json
import urllib.parse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import google.auth
import requests.adapters
from google.api_core import exceptions as api_errors
from google.api_core.client_options import ClientOptions
from google.auth import credentials as auth_credentials
from google.auth import crypt
from google.auth import exceptions as auth_errors
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY
from google.oauth2 import service_account

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.runtime import redaction
from imgsvc.runtime.failpoints import NO_FAILPOINTS, Failpoints
from imgsvc.runtime.settings import Gcs, SettingsError
from imgsvc.storage.small_uploads import SmallUploads

_REASON_CHARS = 300
_SIGNED_AT_ONCE = 20  # 1 ms of CPU each
_SCOPES = ("https://www.googleapis.com/auth/devstorage.read_write",)


class BucketError(ServiceError):
    """The bucket failed: UNAVAILABLE if it may work later as it is, STORAGE_REJECTED if not."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object in the bucket."""

    size_bytes: int
    checksum: str  # crc32c, base64


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
        self._client, session = _client(settings)
        self._bucket = self._client.bucket(settings.bucket)
        self._retry = DEFAULT_RETRY.with_timeout(settings.retry_s)
        self._threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="gcs")
        self._signing = ThreadPoolExecutor(1, thread_name_prefix="signing")
        self._small_uploads = SmallUploads(session, self._client.api_endpoint, settings)

    async def _run(self, function: Any, *args: Any) -> Any:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, functools.partial(function, *args))
        except (
            api_errors.TooManyRequests,
            api_errors.ServerError,
            api_errors.RetryError,
            auth_errors.TransportError,
            auth_errors.RefreshError,
            requests.RequestException,
            ConnectionError,
            TimeoutError,
        ) as error:
            raise BucketError(
                ErrorCode.UNAVAILABLE, "The bucket cannot be reached.", retry_after_s=5
            ) from error
        except (api_errors.Unauthorized, api_errors.Forbidden, api_errors.NotFound) as error:
            # Wrong rights or a missing bucket: the operator can mend that, the images can wait.
            raise BucketError(
                ErrorCode.UNAVAILABLE, "The bucket does not let us in.", retry_after_s=30
            ) from error
        except api_errors.ClientError as error:
            raise BucketError(
                ErrorCode.STORAGE_REJECTED, f"The bucket answered with status {error.code}."
            ) from error

    async def create(self, name: str, path: Path, content_type: str, note: str) -> Stored:
        """Store a file as a new object; an object of that name is adopted as it is.

        Args:
            name: of the object.
            path: of the file.
            content_type: as it is to be served.
            note: how the codec came to it, kept as metadata of the object.

        Raises:
            FileNotFoundError: the file is gone.
            ServiceError: UNAVAILABLE or STORAGE_REJECTED.
        """
        with self._failpoints.around("bucket.create"):
            told = await self._small_uploads.create(name, path, content_type, note)
            if told:
                return Stored(*told)
            stored: Stored = await self._run(self._create, name, path, content_type, note)
        return stored

    def _create(self, name: str, path: Path, content_type: str, note: str) -> Stored:
        blob = self._bucket.blob(name)
        blob.cache_control = self._settings.cache_control
        blob.metadata = {"imgsvc-note": note}
        try:
            blob.upload_from_filename(
                str(path),
                content_type=content_type,
                if_generation_match=0,
                timeout=self._settings.timeout_s,
                retry=self._retry,
                checksum="crc32c",
            )
        except api_errors.PreconditionFailed:
            blob.reload(timeout=self._settings.timeout_s, retry=self._retry)
        return Stored(int(blob.size), str(blob.crc32c))

    async def names(self, prefix: str, limit: int, after: str = "") -> list[str]:
        """The names of objects that begin with ``prefix``, in order.

        Args:
            prefix: what they begin with.
            limit: how many at most.
            after: the last one that is known already.

        Raises:
            ServiceError: UNAVAILABLE.
        """
        found: list[str] = await self._run(self._names, prefix, limit, after)
        return found

    def _names(self, prefix: str, limit: int, after: str) -> list[str]:
        blobs = self._bucket.list_blobs(
            prefix=prefix,
            start_offset=f"{after}\0" if after else None,
            max_results=limit,
            fields="items(name),nextPageToken",
            timeout=self._settings.timeout_s,
            retry=self._retry,
        )
        return [blob.name for blob in blobs]

    async def delete(self, names: Sequence[str]) -> None:
        """Delete objects; one that is not there is as good as deleted.

        A part of the threads does it, so that uploads go on meanwhile.

        Raises:
            BucketError: STORAGE_REJECTED, with the reason, if it keeps some of them, such as those
                under a hold or a retention policy; the others are deleted. UNAVAILABLE; then some
                may be deleted, and some not.
        """
        share = max(1, self._settings.threads // 4)
        with self._failpoints.around("bucket.delete"):
            refused = await asyncio.gather(
                *(self._run(self._delete, names[i::share]) for i in range(min(share, len(names))))
            )
        if reasons := [reason for some in refused for reason in some]:
            kept = f"The bucket keeps {len(reasons)} of {len(names)} objects; the first: "
            raise BucketError(ErrorCode.STORAGE_REJECTED, kept + reasons[0])

    def _delete(self, names: Sequence[str]) -> list[str]:
        """Why it keeps those of these that it keeps."""
        reasons = []
        for name in names:
            try:
                self._bucket.delete_blob(name, timeout=self._settings.timeout_s, retry=self._retry)
            except api_errors.NotFound:
                continue
            except (api_errors.TooManyRequests, api_errors.Unauthorized):
                raise  # it says nothing of the object
            except api_errors.ClientError as error:
                reasons.append(_reason(error))
        return reasons

    async def copy(self, source: str, name: str) -> Stored | None:
        """Have the bucket copy an object; one that has the new name already is adopted as it is.

        Args:
            source: the name of the object to copy.
            name: of the copy.

        Returns:
            The copy; None if there is no such source.

        Raises:
            ServiceError: UNAVAILABLE or STORAGE_REJECTED.
        """
        with self._failpoints.around("bucket.copy"):
            stored: Stored | None = await self._run(self._copy, source, name)
        return stored

    def _copy(self, source: str, name: str) -> Stored | None:
        limits: Any = {"timeout": self._settings.timeout_s, "retry": self._retry}
        try:
            # The emulator does not look at the condition, and replaces what is there.
            blob = self._bucket.copy_blob(
                self._bucket.blob(source), self._bucket, name, if_generation_match=0, **limits
            )
        except api_errors.PreconditionFailed:
            blob = self._bucket.blob(name)
            blob.reload(**limits)
        except api_errors.NotFound:
            return None
        return Stored(int(blob.size), str(blob.crc32c))

    async def urls(self, names: Sequence[str]) -> list[str]:
        """The addresses at which stored objects can be fetched.

        Made anew each time they are asked for: a signed one is valid for ``signed_url_ttl_s``.
        """
        if not self._settings.signed_urls:
            return [self._public_url(name) for name in names]
        # Arithmetic, which waits for nothing: apart from threads that may all wait for the bucket,
        # and a few at a time, so that one long page keeps no short one waiting.
        signed: list[str] = []
        loop = asyncio.get_running_loop()
        for start in range(0, len(names), _SIGNED_AT_ONCE):
            some = names[start : start + _SIGNED_AT_ONCE]
            signed += await loop.run_in_executor(self._signing, self._sign, some)
        return signed

    def _public_url(self, name: str) -> str:
        if self._settings.public_url:
            return f"{self._settings.public_url.rstrip('/')}/{urllib.parse.quote(name, safe='/~')}"
        return str(self._bucket.blob(name).public_url)

    def _sign(self, names: Sequence[str]) -> list[str]:
        valid = timedelta(seconds=self._settings.signed_url_ttl_s)
        return [
            self._bucket.blob(name).generate_signed_url(version="v4", expiration=valid)
            for name in names
        ]

    async def check(self) -> None:
        """Raise ServiceError unless the bucket is there and lets us in."""
        await self._run(self._check)

    def _check(self) -> None:
        # Listing needs fewer rights than reading the bucket's own settings.
        next(iter(self._bucket.list_blobs(max_results=1, timeout=5, retry=None)), None)

    async def ensure(self) -> None:
        """Create the bucket if it is missing; for emulators, where nobody else does."""

        def create() -> None:
            try:
                self._client.create_bucket(self._bucket)
            except api_errors.Conflict:
                return

        await self._run(create)

    async def close(self) -> None:
        """Stop; nobody waits for calls that are under way."""
        await self._small_uploads.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._signing.shutdown(wait=False, cancel_futures=True)
        self._client.close()


def _reason(error: api_errors.ClientError) -> str:
    """Why the bucket refused, in its own words ("errors" in the answers of Google's JSON API)."""
    errors: list[Any] = list(error.errors)
    told: dict[str, Any] = errors[0] if errors and isinstance(errors[0], dict) else {}
    said = redaction.of_library(str(told.get("message") or error.message), _REASON_CHARS)
    return f"{error.code} {told.get('reason', '')}".strip() + f": {said}"


def _client(settings: Gcs) -> tuple[storage.Client, requests.Session]:
    credentials, project = _credentials(settings)
    session = _session(None if settings.emulator_host else credentials, settings.threads)
    client = storage.Client(
        project=settings.project or project or "imgsvc",
        credentials=credentials,
        _http=session,
        client_options=ClientOptions(api_endpoint=settings.emulator_host)
        if settings.emulator_host
        else None,
    )
    # What the environment says of proxies and certificates is looked up once, not for each call.
    found = session.merge_environment_settings(client.api_endpoint, {}, None, None, None)
    session.proxies, session.verify, session.trust_env = found["proxies"], found["verify"], False
    # Other signers, such as that of a borrowed account, ask Google for each signature.
    if settings.signed_urls and not isinstance(
        getattr(credentials, "signer", None), crypt.RSASigner
    ):
        raise SettingsError(
            "gcs.signed_urls = true needs a service account key to sign with: set "
            "GCP_KEY_BASE64 or GOOGLE_APPLICATION_CREDENTIALS"
        )
    return client, session


def _session(credentials: Any | None, threads: int) -> requests.Session:
    """One kept-alive connection for each thread; the library's pool of 10 is not tied to it."""
    session = AuthorizedSession(credentials) if credentials else requests.Session()
    adapter = requests.adapters.HTTPAdapter(pool_connections=threads, pool_maxsize=threads)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _credentials(settings: Gcs) -> tuple[Any, str | None]:
    if settings.key_base64:
        try:
            info = json.loads(base64.b64decode(settings.key_base64.get_secret_value()))
            key = service_account.Credentials.from_service_account_info(info, scopes=_SCOPES)
        except (binascii.Error, ValueError, KeyError, TypeError, AttributeError):
            raise SettingsError(
                "GCP_KEY_BASE64 = ***: must be the base64 of a service account's JSON key"
            ) from None
        return key, info.get("project_id")
    if settings.credentials_file:
        try:
            key, project = google.auth.load_credentials_from_file(
                str(settings.credentials_file), scopes=_SCOPES
            )
        except (OSError, ValueError, auth_errors.GoogleAuthError) as error:
            raise SettingsError(
                f"GOOGLE_APPLICATION_CREDENTIALS = {settings.credentials_file}: {redaction.of_error(error)}"
            ) from None
        return key, project
    if settings.emulator_host:
        return auth_credentials.AnonymousCredentials(), None
    try:
        found, project = google.auth.default(scopes=_SCOPES)
    except auth_errors.DefaultCredentialsError:
        raise SettingsError(
            "no credentials for the bucket: set GCP_KEY_BASE64 or "
            "GOOGLE_APPLICATION_CREDENTIALS, run where Google gives the machine an identity, or "
            "point STORAGE_EMULATOR_HOST at an emulator"
        ) from None
    return found, project
