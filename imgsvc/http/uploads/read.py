"""The body of an upload: JSON, CSV or a form, read as a file with fields beside it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.http import keys, problem_details
from imgsvc.http.input import bodies, charsets, schema_validation, unknown_names
from imgsvc.http.schemas.uploads import CsvQuery, Form, UploadQuery
from imgsvc.http.uploads import forms

_FORM_FIELDS = unknown_names.known_at(Form, ())


@dataclass(frozen=True, slots=True)
class UploadBody:
    """What was posted, in UTF-8.

    Attributes:
        media_type: how it was sent.
        file: the products; JSON has everything in it.
        fields: what was sent beside a CSV, by name.
        dry_run: whether it is only to be checked.
    """

    media_type: str
    file: bytes
    fields: Mapping[str, bytes]
    dry_run: bool = False

    def digest(self) -> str:
        """A digest of the content; a form's boundary, which is new each time, does not count."""
        digest = hashlib.sha256(self.media_type.encode())
        for name, content in sorted({**self.fields, "file": self.file}.items()):
            digest.update(f"{name}:{len(content)}:".encode())
            digest.update(content)
        return digest.hexdigest()


async def read(request: web.Request) -> UploadBody:
    """Read the query and the body of an upload, within the limits of size and time.

    Raises:
        ServiceError: BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE or REQUEST_TIMEOUT; VALIDATION_FAILED
            for an unknown query or form field; BAD_REQUEST for a malformed form; INVALID_JSON,
            INVALID_CSV or VALIDATION_FAILED for text that is not in the charset it claims.
    """
    is_csv = request.content_type == "text/csv"
    query = schema_validation.query(CsvQuery if is_csv else UploadQuery, request)
    bodies.refuse_encoded(request)
    content = await bodies.in_time(request, _content(request, query))
    file = content.pop("file")
    return UploadBody(request.content_type, file, content, query.dry_run)


async def _content(request: web.Request, query: UploadQuery) -> dict[str, bytes]:
    """The body as ``file`` with the fields beside it."""
    limit = request.app[keys.SETTINGS].http.body_limit_bytes
    match request.content_type:
        case "application/json":
            return {"file": await bodies.text(request, limit, ErrorCode.INVALID_JSON)}
        case "text/csv":
            fields = query.model_dump(exclude={"dry_run"}, exclude_none=True)
            body = await bodies.text(request, limit, ErrorCode.INVALID_CSV)
            return {"file": body} | {name: str(value).encode() for name, value in fields.items()}
        case "multipart/form-data":
            return await _form(request, limit)
    raise ServiceError(ErrorCode.UNSUPPORTED_MEDIA_TYPE)


async def _form(request: web.Request, limit: int) -> dict[str, bytes]:
    form: dict[str, bytes] = {}
    try:
        async for part in forms.parts(request):
            name = part.name if isinstance(part, BodyPartReader) else None
            if not isinstance(part, BodyPartReader) or name not in _FORM_FIELDS:
                advice = unknown_names.advice(name or "?", _FORM_FIELDS)
                raise problem_details.invalid([name or "?"], advice)
            if name in form:
                raise problem_details.invalid([name], "is given twice")
            form[name] = await _part(request, part, name, limit)
    except (ValueError, AssertionError, HttpProcessingError, web.RequestPayloadError):
        raise ServiceError(ErrorCode.BAD_REQUEST, "The form is not well-formed.") from None
    if "file" not in form:
        raise problem_details.invalid(["file"], "is missing; attach the CSV")
    return form


async def _part(request: web.Request, part: BodyPartReader, name: str, limit: int) -> bytes:
    charset = charsets.find(forms.charset(part))
    if name == "file":
        content = await bodies.collect(request, _pieces(part), limit)
        return await bodies.as_utf8(content, charset, limit, ErrorCode.INVALID_CSV)
    content = await bodies.collect(request, _pieces(part), bodies.SMALL)
    code = ErrorCode.VALIDATION_FAILED
    return await bodies.as_utf8(content, charset, bodies.SMALL, code, name)


async def _pieces(part: BodyPartReader) -> AsyncIterator[bytes]:
    while piece := await part.read_chunk(bodies.CHUNK):
        yield bytes(piece)
