"""Our error codes for whatever the HTTP client raises."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import aiohttp

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.outbound.guard import BlockedError
from imgsvc.runtime import tls
from imgsvc.runtime.settings import Fetch

# The first that matches. What is not HTTP looks like a port that is closed, and one that says
# nothing like one that is filtered: nobody may learn from us what else runs on a host.
_CODES: tuple[tuple[type[Exception], ErrorCode], ...] = (
    (aiohttp.ClientConnectorDNSError, ErrorCode.DNS_FAILED),
    (TimeoutError, ErrorCode.FETCH_TIMEOUT),
    (aiohttp.InvalidURL, ErrorCode.URL_INVALID),
    (Exception, ErrorCode.CONNECT_FAILED),
)


@contextlib.contextmanager
def fetch_errors(fetch: Fetch) -> Iterator[None]:
    """Raise our errors in place of the client's.

    Args:
        fetch: the limits that the error of a timeout names.

    Raises:
        ServiceError: URL_BLOCKED, URL_INVALID, DNS_FAILED, CONNECT_FAILED or FETCH_TIMEOUT.
    """
    try:
        yield
    except (aiohttp.ClientError, OSError, ValueError) as error:
        if _blocked(error):
            raise ServiceError(ErrorCode.URL_BLOCKED) from None
        code = next(code for kind, code in _CODES if isinstance(error, kind))
        detail = code.message
        if code is ErrorCode.FETCH_TIMEOUT:
            detail = (
                f"Silence of {fetch.silence_s:g} s, less than {fetch.min_bytes_per_s} bytes a "
                f"second for {fetch.slow_s:g} s, or over {fetch.total_s:g} s in all."
            )
        raise ServiceError(code, detail, cause=tls.failure(error)) from None


def _blocked(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, BlockedError):
            return True
        error = getattr(error, "os_error", None) or error.__cause__ or error.__context__
    return False
