"""The parts of a multipart/form-data body (RFC 7578), and which charset each is in."""

from __future__ import annotations

from typing import Any, cast

from aiohttp import BodyPartReader, MultipartReader, StreamReader, web
from aiohttp.helpers import parse_mimetype

_CHUNK = 64 * 1024
_MOST_LINES = 200  # around the parts; each of a handful needs some seven
_LONGEST_LABEL = 40  # of an encoding


def parts(request: web.Request) -> MultipartReader:
    """The parts of a request's body, to be read one after the other.

    Raises:
        ValueError: the body is not a form; also raised later, while it is read.
    """
    return _Parts(request.headers, cast("StreamReader", _FewLines(request.content)))


def charset(part: BodyPartReader) -> str:
    """The charset of a part, or an empty text if nothing names one.

    The form's own charset applies to its text fields, but not to a file in it (section 4.6).
    """
    media_type = parse_mimetype(part.headers.get("Content-Type", ""))
    if not media_type.type or (media_type.type, media_type.subtype) == ("text", "plain"):
        return part.get_charset("")
    return media_type.parameters.get("charset", "")


class _Parts(MultipartReader):
    """Reads the field ``_charset_``, which has to come first.

    aiohttp's own code for this ends with an error: it does not read to the end of the field.
    """

    _is_first = True

    async def fetch_next_part(self) -> MultipartReader | BodyPartReader:
        part = await super().fetch_next_part()
        if self._is_first and isinstance(part, BodyPartReader) and part.name == "_charset_":
            label = b""
            while piece := await part.read_chunk(_CHUNK):
                label += piece
                if len(label) > _LONGEST_LABEL:
                    raise ValueError
            self._default_charset = label.decode()
            await self._read_boundary()
            part = await super().fetch_next_part()
        self._is_first = False
        return part


class _FewLines:
    """A ``StreamReader`` of which only so many lines can be read.

    Lines before the first part of a form belong to no part, so nobody else counts them. A client
    could send them without end, and each takes as much time as a large piece.
    """

    def __init__(self, content: StreamReader) -> None:
        self._content = content
        self._left = _MOST_LINES

    async def readline(self, **options: Any) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise ValueError
        return await self._content.readline(**options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)
