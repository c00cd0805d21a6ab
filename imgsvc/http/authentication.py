"""Bearer authentication (RFC 6750): the ``Authorization`` header in, a challenge out."""

from __future__ import annotations

from collections.abc import Sequence

from imgsvc.auth.authenticator import Authenticator, Caller
from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import Scope
from imgsvc.http.problem_details import RefusedError

_SCHEME = "bearer"
_REALM = 'Bearer realm="imgsvc"'


async def identify(authenticator: Authenticator, authorization: Sequence[str]) -> Caller:
    """Who makes a call.

    Args:
        authenticator: knows whom credentials belong to.
        authorization: all ``Authorization`` headers of the call.

    Raises:
        RefusedError: UNAUTHENTICATED; nobody we know.
        ServiceError: UNAVAILABLE; it cannot be found out at present.
    """
    if len(authorization) != 1:
        # If there are two, a proxy might have looked at the other one.
        raise RefusedError(ErrorCode.UNAUTHENTICATED, headers={"WWW-Authenticate": _REALM})
    scheme, _, credential = authorization[0].partition(" ")
    if scheme.lower() != _SCHEME:
        raise _challenge(f"Send Authorization: Bearer with {authenticator.accepts}.")
    try:
        return await authenticator.caller(credential)
    except ServiceError as error:
        if error.code is not ErrorCode.UNAUTHENTICATED:
            raise
        raise _challenge(error.detail) from None


def require(caller: Caller, scope: Scope) -> None:
    """Let a caller do only what their credential allows.

    Raises:
        RefusedError: FORBIDDEN.
    """
    if scope not in caller.scopes:
        raise RefusedError(
            ErrorCode.FORBIDDEN,
            f"Your key does not allow this call; it needs the scope {scope}.",
            headers={"WWW-Authenticate": f'{_REALM}, error="insufficient_scope", scope="{scope}"'},
        )


def _challenge(detail: str) -> RefusedError:
    challenge = f'{_REALM}, error="invalid_token", error_description="{detail}"'
    return RefusedError(ErrorCode.UNAUTHENTICATED, detail, headers={"WWW-Authenticate": challenge})
