"""Errors of Google's library become errors of the service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
from google.api_core import exceptions as api_errors
from google.auth import exceptions as auth_errors

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.runtime import redaction

_REASON_CHARS = 300


class BucketError(ServiceError):
    """The bucket failed: UNAVAILABLE if the call may work later, STORAGE_REJECTED if not."""


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise a BucketError for what the library raises inside.

    Raises:
        BucketError: UNAVAILABLE or STORAGE_REJECTED.
    """
    try:
        yield
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
        # The rights are wrong or the bucket is missing. The operator can mend that; images wait.
        raise BucketError(
            ErrorCode.UNAVAILABLE, "The bucket does not let us in.", retry_after_s=30
        ) from error
    except api_errors.ClientError as error:
        raise BucketError(
            ErrorCode.STORAGE_REJECTED, f"The bucket answered with status {error.code}."
        ) from error


def reason(error: api_errors.ClientError) -> str:
    """Why the bucket refused, in its own words ("errors" in the answers of Google's JSON API)."""
    errors: list[Any] = list(error.errors)
    first: dict[str, Any] = errors[0] if errors and isinstance(errors[0], dict) else {}
    message = redaction.of_library(str(first.get("message") or error.message), _REASON_CHARS)
    return f"{error.code} {first.get('reason', '')}".strip() + f": {message}"
