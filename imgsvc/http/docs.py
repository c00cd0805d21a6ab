"""The calls that document the others: the OpenAPI document, and a page that shows it."""

from __future__ import annotations

from importlib import resources

from aiohttp import web

from imgsvc.http import keys


async def openapi(request: web.Request) -> web.Response:
    """The OpenAPI document; made once, because that takes 50 ms of the event loop."""
    return web.Response(body=request.app[keys.OPENAPI], content_type="application/json")


async def docs(request: web.Request) -> web.Response:  # noqa: ARG001
    """A page that shows the OpenAPI document."""
    return _static("docs.html", "text/html")


async def docs_script(request: web.Request) -> web.Response:  # noqa: ARG001
    """The page's script; a file of its own, because the content policy forbids inline scripts."""
    return _static("docs.js", "text/javascript")


async def docs_style(request: web.Request) -> web.Response:  # noqa: ARG001
    """The page's style."""
    return _static("docs.css", "text/css")


def _static(name: str, content_type: str) -> web.Response:
    text = resources.files("imgsvc.http").joinpath("static", name).read_text("utf-8")
    return web.Response(text=text, content_type=content_type)
