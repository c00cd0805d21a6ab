"""Which check of TLS a server failed, in words for operators."""

from __future__ import annotations

import ssl

import aiohttp

# OpenSSL's X509_V_ERR_… (x509_vfy.h), by what has to be done about them.
_CHECKS = {
    9: "not yet valid",
    10: "expired",
    18: "unknown authority",  # signed by itself
    19: "unknown authority",  # the root is not known
    20: "unknown authority",  # the issuer is not known: often an intermediate is not sent
    21: "unknown authority",
    62: "wrong name",
    64: "wrong name",  # of an address
}


def failure(error: BaseException) -> str | None:
    """The check that failed, of which host, and what OpenSSL says; None if TLS is not at fault.

    Args:
        error: what the client library raised.
    """
    if not isinstance(error, aiohttp.ClientSSLError):
        return None
    where = f"{error.host}:{error.port}"
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        check = _CHECKS.get(cause.verify_code, "certificate refused")
        return f"TLS: {check} ({where}): {cause.verify_message}"
    reason = getattr(cause, "reason", None) or "the connection ended"
    return f"TLS: protocol ({where}): {reason}"
