"""Connect to Google Cloud Storage: credentials, connections, proxies and certificates."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import google.auth
import requests.adapters
from google.api_core.client_options import ClientOptions
from google.auth import credentials as auth_credentials
from google.auth import crypt
from google.auth import exceptions as auth_errors
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage
from google.oauth2 import service_account

from imgsvc.runtime import redaction
from imgsvc.runtime.settings import Gcs, SettingsError

_SCOPES = ("https://www.googleapis.com/auth/devstorage.read_write",)


def connect(settings: Gcs) -> tuple[storage.Client, requests.Session]:
    """The library's client, and the session with which it makes its calls.

    Raises:
        SettingsError: there are no usable credentials.
    """
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
    # Proxies and certificates of the environment are looked up once, not for each call.
    environment = session.merge_environment_settings(client.api_endpoint, {}, None, None, None)
    session.proxies, session.verify = environment["proxies"], environment["verify"]
    session.trust_env = False
    # Other signers, such as that of an impersonated account, ask Google for each signature.
    if settings.signed_urls and not isinstance(
        getattr(credentials, "signer", None), crypt.RSASigner
    ):
        raise SettingsError(
            "gcs.signed_urls = true needs a service account key to sign with: set "
            "GCP_KEY_BASE64 or GOOGLE_APPLICATION_CREDENTIALS"
        )
    return client, session


def _session(credentials: Any | None, threads: int) -> requests.Session:
    """A session that keeps one connection for each thread; the library's own would keep 10."""
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
