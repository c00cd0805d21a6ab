"""The bodies of calls: read in time, counted while they arrive, and turned into UTF-8."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.validation import ValidationProblems
from imgsvc.http import keys, problem_details
from imgsvc.http.input import charsets, schema_validation, strict_json
from imgsvc.http.input.charsets import Charset
from imgsvc.http.input.strict_json import JsonError

CHUNK = 64 * 1024
SMALL = 64 * 1024
"""Bytes; enough for everything but products."""

_LARGE = 32 * 1024  # bytes; decoding more would hold up the event loop

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


async def json(schema: type[M], request: web.Request) -> M:
    """A small JSON body.

    Raises:
        ServiceError: INVALID_JSON, VALIDATION_FAILED, BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE or
            REQUEST_TIMEOUT.
    """
    if request.content_type != "application/json":
        raise ServiceError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, "Send application/json.")
    refuse_encoded(request)
    body = await in_time(request, text(request, SMALL, ErrorCode.INVALID_JSON))
    try:
        return schema_validation.validated(schema, strict_json.parse(body))
    except JsonError as error:
        problems = ValidationProblems()
        problems.add(error.loc, str(error))
        raise problem_details.refusal(error.code, problems) from None


def refuse_encoded(request: web.Request) -> None:
    """Refuse a compressed body: a few bytes could become a huge body.

    Raises:
        ServiceError: UNSUPPORTED_MEDIA_TYPE.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ServiceError(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE, "Send the body as it is, without Content-Encoding."
        )


async def in_time(request: web.Request, reading: Awaitable[T]) -> T:
    """What ``reading`` returns, if the body arrives in time.

    Raises:
        ServiceError: REQUEST_TIMEOUT.
    """
    try:
        async with asyncio.timeout(request.app[keys.SETTINGS].http.body_timeout_s):
            return await reading
    except TimeoutError:
        raise ServiceError(ErrorCode.REQUEST_TIMEOUT) from None


async def text(request: web.Request, limit: int, code: ErrorCode) -> bytes:
    """The whole body in UTF-8.

    Args:
        request: the call.
        limit: bytes, as they arrive and as UTF-8.
        code: the refusal of a body that is not in the charset it claims.

    Raises:
        ServiceError: BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, OVERLOADED or ``code``.
    """
    charset = charsets.find(request.charset)
    content = await collect(request, request.content.iter_chunked(CHUNK), limit)
    return await as_utf8(content, charset, limit, code)


async def collect(request: web.Request, pieces: AsyncIterable[bytes], limit: int) -> bytes:
    """All pieces as one; counted here, because aiohttp's own limit does not see them.

    Raises:
        ServiceError: BODY_TOO_LARGE, or OVERLOADED if all bodies together take too much memory.
    """
    body = bytearray()
    async for piece in pieces:
        request.app[keys.BODY_BUDGET].take(request, len(piece))
        if len(body) + len(piece) > limit:
            raise _too_large(limit)
        body += piece
    return bytes(body)


async def as_utf8(
    content: bytes, charset: Charset, limit: int, code: ErrorCode, field: str | None = None
) -> bytes:
    """The content in UTF-8.

    Args:
        content: bytes in ``charset``.
        charset: as it was claimed.
        limit: bytes of the result.
        code: the refusal of content that is not in this charset.
        field: of a form, which the content is from.

    Raises:
        ServiceError: BODY_TOO_LARGE or ``code``.
    """
    try:
        if len(content) > _LARGE and charset != charsets.UTF_8:
            return await asyncio.to_thread(charsets.as_utf8, content, charset, limit)
        return charsets.as_utf8(content, charset, limit)
    except charsets.UnreadableError as error:
        problems = ValidationProblems()
        problems.add([field] if field else ["line", error.line], str(error))
        raise problem_details.refusal(code, problems) from None
    except charsets.TooLargeError:
        raise _too_large(limit) from None


def _too_large(limit: int) -> ServiceError:
    return ServiceError(
        ErrorCode.BODY_TOO_LARGE,
        f"The body is larger than {limit} bytes; split it into several uploads.",
    )
