"""The calls that operators and orchestrators make."""

from __future__ import annotations

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from imgsvc.http import keys, responses


async def healthz(request: web.Request) -> web.Response:  # noqa: ARG001
    """The process and its event loop run."""
    return responses.json({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """Redis, MongoDB and the bucket answer, and this replica is at work."""
    app = request.app
    checks = {**await app[keys.READINESS].checks(), "process": app[keys.HEALTH].state}
    ready = all(outcome == "ok" or outcome.startswith("ok, ") for outcome in checks.values())
    return responses.json(
        {"status": "ready" if ready else "not ready", "checks": checks},
        status=200 if ready else 503,
        headers={} if ready else {"Retry-After": "2"},
    )


async def metrics(request: web.Request) -> web.Response:
    """Metrics in Prometheus' text format."""
    return web.Response(
        body=request.app[keys.METRICS].render(), headers={"Content-Type": CONTENT_TYPE_LATEST}
    )
