"""The calls that operators and orchestrators make."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from importlib import resources

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from imgsvc.errors import ServiceError
from imgsvc.http import answers, keys
from imgsvc.settings import SettingsError

_CHECK_S = 4.0
_BUCKET_CHECK_EVERY_S = 15.0  # each one costs money at the real bucket

_BUCKET_CHECKED = web.AppKey("bucket_checked", list[float])


async def healthz(request: web.Request) -> web.Response:  # noqa: ARG001
    """The process runs and its loop turns."""
    return answers.json({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """Redis, MongoDB and the bucket answer, and this replica is at work."""
    app = request.app
    redis, mongo, bucket = await asyncio.gather(
        _outcome(app[keys.MAILBOXES].check()),
        _outcome(app[keys.LEDGER].check()),
        _outcome(_check_bucket(app)),
    )
    process = app[keys.HEALTH].state
    checks = {"redis": redis, "mongo": mongo, "bucket": bucket, "process": process}
    ready = all(outcome == "ok" or outcome.startswith("ok, ") for outcome in checks.values())
    return answers.json(
        {"status": "ready" if ready else "not ready", "checks": checks},
        status=200 if ready else 503,
        headers={} if ready else {"Retry-After": "2"},
    )


async def _outcome(check: Awaitable[str | None]) -> str:
    """``ok``, perhaps with what cannot be known, or what is wrong."""
    try:
        async with asyncio.timeout(_CHECK_S):
            return await check or "ok"
    except TimeoutError:
        return f"no answer within {_CHECK_S:g} s"
    except ServiceError as error:
        return error.detail
    except SettingsError:
        return "made for a newer version of this service"


def remember_checks(app: web.Application) -> None:
    """Prepare the application for ``readyz``."""
    app[_BUCKET_CHECKED] = [float("-inf")]


async def _check_bucket(app: web.Application) -> None:
    last = app[_BUCKET_CHECKED]
    if time.monotonic() - last[0] > _BUCKET_CHECK_EVERY_S:
        await app[keys.BUCKET].check()
        last[0] = time.monotonic()


async def metrics(request: web.Request) -> web.Response:
    """Prometheus' text."""
    return web.Response(
        body=request.app[keys.METRICS].render(), headers={"Content-Type": CONTENT_TYPE_LATEST}
    )


async def docs(request: web.Request) -> web.Response:  # noqa: ARG001
    """A page that shows the OpenAPI document."""
    return _static("docs.html", "text/html")


async def docs_script(request: web.Request) -> web.Response:  # noqa: ARG001
    """The page's script; apart from it, because the content policy forbids inline ones."""
    return _static("docs.js", "text/javascript")


async def docs_style(request: web.Request) -> web.Response:  # noqa: ARG001
    """The page's style."""
    return _static("docs.css", "text/css")


def _static(name: str, content_type: str) -> web.Response:
    text = resources.files("imgsvc.http").joinpath("static", name).read_text("utf-8")
    return web.Response(text=text, content_type=content_type)
