"""``imgsvc openapi``: the OpenAPI document."""

from __future__ import annotations

import orjson

from imgsvc.http import openapi, routes


def text() -> str:
    """The document as indented JSON."""
    document = openapi.document(routes.ROUTES)
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
