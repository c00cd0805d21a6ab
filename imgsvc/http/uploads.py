"""Reading what clients post: JSON, CSV or a form, counted while it arrives, then validated."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable
from typing import TypeVar

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import BaseModel

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.validation import ValidationProblems
from imgsvc.http import charsets, dry_run, forms, keys, names, problem_details, strict_json
from imgsvc.http.charsets import Charset
from imgsvc.http.limits import quotas
from imgsvc.http.posted import Posted, examine
from imgsvc.http.schemas.uploads import CsvQuery, Form, UploadHeaders, UploadQuery
from imgsvc.http.strict_json import JsonError
from imgsvc.ledger import Document, NewRequest, Repeat
from imgsvc.runtime.settings import Http

_CHUNK = 64 * 1024
_FORM_FIELDS = names.known_at(Form, ())
_LARGE = 32 * 1024  # from here on validating takes long enough to be done beside the loop
_SMALL = 64 * 1024  # enough for everything but products

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


async def read(request: web.Request) -> NewRequest:
    """The request that a client posts.

    Raises:
        ServiceError: INVALID_JSON, INVALID_CSV, VALIDATION_FAILED, BODY_TOO_LARGE,
            UNSUPPORTED_MEDIA_TYPE or REQUEST_TIMEOUT.
    """
    form = await _form(request)
    posted = await _examined(request, form)
    if posted.problems.count:
        raise problem_details.refusal(posted.code, posted.problems)
    return NewRequest(
        [product for _, product in posted.products],
        posted.recipe,
        posted.webhook,
        call_id=request[keys.CALL_ID],
        tenant=request[keys.TENANT],
        quota_tenant=request[keys.QUOTA_TENANT],
        repeat=_repeat(request, form),
        expires_in_days=posted.expires_in_days,
        share=request.app[keys.SETTINGS].dedupe.enabled,
    )


def asked(request: web.Request) -> UploadQuery:
    """What the query of an upload says.

    Raises:
        ServiceError: VALIDATION_FAILED.
    """
    return problem_details.query(
        CsvQuery if request.content_type == "text/csv" else UploadQuery, request
    )


async def try_out(request: web.Request) -> Document:
    """What is wrong with the request that a client posts, and what it holds.

    Raises:
        ServiceError: BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE or REQUEST_TIMEOUT, or
            VALIDATION_FAILED for a form with other fields than these; INVALID_JSON, INVALID_CSV or
            VALIDATION_FAILED for what is not in the charset that it says it is in.
    """
    posted = await _examined(request, await _form(request))
    return await asyncio.to_thread(dry_run.view, posted)


async def _examined(request: web.Request, form: dict[str, bytes]) -> Posted:
    settings = request.app[keys.SETTINGS]
    limits, keep_days = quotas.of_one_upload(settings), settings.retention.days
    guard = request.app[keys.OUTBOUND].guard
    if len(form["file"]) > _LARGE:
        return await asyncio.to_thread(
            examine, request.content_type, form, limits, keep_days, guard
        )
    return examine(request.content_type, form, limits, keep_days, guard)


def _repeat(request: web.Request, form: dict[str, bytes]) -> Repeat | None:
    """What the ``Idempotency-Key`` stands for; a form's boundary differs each time it is sent."""
    if "Idempotency-Key" not in request.headers:
        return None
    if len(request.headers.getall("Idempotency-Key")) > 1:
        raise problem_details.invalid([{"loc": ["Idempotency-Key"], "msg": "is given twice"}])
    given = {"Idempotency-Key": request.headers["Idempotency-Key"]}
    key = problem_details.validated(UploadHeaders, given).idempotency_key
    digest = hashlib.sha256(request.content_type.encode())
    for name, content in sorted(form.items()):
        digest.update(f"{name}:{len(content)}:".encode())
        digest.update(content)
    return Repeat(str(key), digest.hexdigest(), request.app[keys.SETTINGS].http.idempotency_ttl_s)


async def read_json(shape: type[M], request: web.Request) -> M:
    """A small JSON body as ``shape``.

    Raises:
        ServiceError: INVALID_JSON, VALIDATION_FAILED, BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE or
            REQUEST_TIMEOUT.
    """
    if request.content_type != "application/json":
        raise ServiceError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, "Send application/json.")
    _as_it_is(request)
    settings = request.app[keys.SETTINGS].http
    body = await _in_time(_body(request, _SMALL, ErrorCode.INVALID_JSON), settings)
    try:
        return problem_details.validated(shape, strict_json.parse(body))
    except JsonError as error:
        problems = ValidationProblems()
        problems.add(error.loc, str(error))
        raise problem_details.refusal(error.code, problems) from None


def _as_it_is(request: web.Request) -> None:
    """Refuse what would have to be inflated first: a small bomb becomes a large body."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ServiceError(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE, "Send the body as it is, without Content-Encoding."
        )


async def _in_time(reading: Awaitable[T], settings: Http) -> T:
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            return await reading
    except TimeoutError:
        raise ServiceError(ErrorCode.REQUEST_TIMEOUT) from None


async def _form(request: web.Request) -> dict[str, bytes]:
    """The body as ``file`` with the fields beside it, whatever way they were sent."""
    _as_it_is(request)
    settings = request.app[keys.SETTINGS].http
    return await _in_time(_received(request, settings.body_limit_bytes), settings)


async def _received(request: web.Request, limit: int) -> dict[str, bytes]:
    match request.content_type:
        case "application/json":
            return {"file": await _body(request, limit, ErrorCode.INVALID_JSON)}
        case "text/csv":
            beside = asked(request).model_dump(exclude={"dry_run"}, exclude_none=True)
            body = await _body(request, limit, ErrorCode.INVALID_CSV)
            return {"file": body} | {name: str(said).encode() for name, said in beside.items()}
        case "multipart/form-data":
            return await _multipart(request, limit)
    raise ServiceError(ErrorCode.UNSUPPORTED_MEDIA_TYPE)


async def _multipart(request: web.Request, limit: int) -> dict[str, bytes]:
    form: dict[str, bytes] = {}
    try:
        async for part in forms.parts(request):
            name = part.name if isinstance(part, BodyPartReader) else None
            if not isinstance(part, BodyPartReader) or name not in _FORM_FIELDS:
                raise problem_details.invalid(
                    [{"loc": [name or "?"], "msg": names.advice(name or "?", _FORM_FIELDS)}]
                )
            if name in form:
                raise problem_details.invalid([{"loc": [name], "msg": "is given twice"}])
            charset = charsets.find(forms.charset(part))
            if name == "file":
                content = await _collect(request, _part(part), limit)
                form[name] = await _as_utf8(content, charset, limit, ErrorCode.INVALID_CSV)
            else:
                content = await _collect(request, _part(part), _SMALL)
                form[name] = await _as_utf8(
                    content, charset, _SMALL, ErrorCode.VALIDATION_FAILED, name
                )
    except (ValueError, AssertionError, HttpProcessingError, web.RequestPayloadError):
        raise ServiceError(ErrorCode.BAD_REQUEST, "The form is not well-formed.") from None
    if "file" not in form:
        raise problem_details.invalid([{"loc": ["file"], "msg": "is missing; attach the CSV"}])
    return form


async def _body(request: web.Request, limit: int, code: ErrorCode) -> bytes:
    """The body in UTF-8; ``code`` is what it is called if it cannot be read."""
    charset = charsets.find(request.charset)
    content = await _collect(request, request.content.iter_chunked(_CHUNK), limit)
    return await _as_utf8(content, charset, limit, code)


async def _as_utf8(
    content: bytes, charset: Charset, limit: int, code: ErrorCode, field: str | None = None
) -> bytes:
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


async def _part(part: BodyPartReader) -> AsyncIterator[bytes]:
    while piece := await part.read_chunk(_CHUNK):
        yield bytes(piece)


async def _collect(request: web.Request, pieces: AsyncIterable[bytes], limit: int) -> bytes:
    """All pieces, counted: aiohttp's own limit does not see these."""
    body = bytearray()
    async for piece in pieces:
        request.app[keys.INTAKE].take(request, len(piece))
        if len(body) + len(piece) > limit:
            raise _too_large(limit)
        body += piece
    return bytes(body)


def _too_large(limit: int) -> ServiceError:
    return ServiceError(
        ErrorCode.BODY_TOO_LARGE,
        f"The body is larger than {limit} bytes; split it into several uploads.",
    )
