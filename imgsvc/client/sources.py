"""What is submitted: a CSV, a JSON or URLs, as the body of a call."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import orjson
from yarl import URL

_A_URL = re.compile(r"https?://", re.IGNORECASE)


class SourceError(ValueError):
    """What is to be submitted cannot be; the text is for the user."""


class Upload(Protocol):
    """A body for ``POST /api/upload``."""

    def body(self) -> dict[str, Any]:
        """It as arguments for aiohttp, made anew each time it is sent."""


class JsonUpload:
    """Products as JSON.

    Args:
        text: the JSON.
    """

    def __init__(self, text: bytes) -> None:
        self.text = text

    def body(self) -> dict[str, Any]:
        """It as arguments for aiohttp."""
        import aiohttp  # noqa: PLC0415 - loaded when something is sent

        text = io.BytesIO(self.text)
        return {"data": aiohttp.BytesIOPayload(text, content_type="application/json")}


class CsvUpload:
    """A CSV and the fields beside it, which in a form stay out of the logs of proxies."""

    def __init__(self, csv: bytes, name: str, fields: dict[str, bytes]) -> None:
        self._csv = csv
        self._name = name
        self._fields = fields

    def body(self) -> dict[str, Any]:
        """It as arguments for aiohttp, which uses a form up."""
        import aiohttp  # noqa: PLC0415 - loaded when something is sent

        form = aiohttp.FormData()
        for name, value in self._fields.items():
            form.add_field(name, value.decode())
        csv = io.BytesIO(self._csv)
        form.add_field("file", csv, filename=self._name, content_type="text/csv")
        return {"data": form}


def read(sources: Sequence[str], webhook: str | None, options: dict[str, Any]) -> Upload:
    """The upload that the user means.

    Args:
        sources: one file, its JSON known by its name, or any number of URLs, each of which
            becomes a product of its own.
        webhook: told when the request has ended.
        options: how to encode.

    Raises:
        SourceError: the sources do not go together, or a file cannot be read or is not what its
            name says.
    """
    beside: dict[str, Any] = {"webhookUrl": webhook} if webhook else {}
    if options:
        beside["options"] = options
    urls = [source for source in sources if _A_URL.match(source)]
    if urls:
        if len(urls) < len(sources):
            raise SourceError("Submit either one file or URLs, not both.")
        return JsonUpload(orjson.dumps({"products": _products(urls), **beside}))
    if len(sources) > 1:
        raise SourceError("Submit one file at a time.")
    file = Path(sources[0])
    try:
        text = file.read_bytes()
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error.strerror}.") from None
    if file.suffix.lower() == ".json":
        return JsonUpload(_completed(file, text, beside) if beside else text)
    return CsvUpload(
        text,
        file.name,
        {
            name: value.encode() if isinstance(value, str) else orjson.dumps(value)
            for name, value in beside.items()
        },
    )


def _products(urls: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"serialNumber": str(number), "productName": _name(url), "inputUrls": [url]}
        for number, url in enumerate(urls, start=1)
    ]


def _name(url: str) -> str:
    """What a URL ends with, or else itself."""
    try:
        return (URL(url).name or url)[:500]
    except ValueError:  # to be refused by the service, which says why
        return url[:500]


def _completed(file: Path, text: bytes, beside: dict[str, Any]) -> bytes:
    """The file's JSON with what the command line says beside it."""
    try:
        upload = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise SourceError(f"{file} is not JSON: {error}") from None
    if not isinstance(upload, dict) or not isinstance(upload.get("options", {}), dict):
        raise SourceError(f'{file} is not an upload: {{"products": [...], "options": {{...}}}}.')
    options = {**upload.get("options", {}), **beside.get("options", {})}
    return orjson.dumps({**upload, **beside} | ({"options": options} if options else {}))
