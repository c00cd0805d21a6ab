"""The whole table of routes: every call's address and handler, and its part of the document."""

from __future__ import annotations

import functools

import orjson
from aiohttp import web

from imgsvc.domain.model import Receiver, Scope
from imgsvc.http import docs, examples, keys, openapi, ops, webhooks
from imgsvc.http.requests import changes, deliveries, download, images, savings, status
from imgsvc.http.route import Route
from imgsvc.http.schemas.downloads import DownloadQuery
from imgsvc.http.schemas.dry_run import DryRun
from imgsvc.http.schemas.health import Health, Readiness
from imgsvc.http.schemas.images import ImagesPage, ImagesQuery
from imgsvc.http.schemas.requests import Changed, Erased, RequestsPage, RequestsQuery, Retry, Status
from imgsvc.http.schemas.savings import SavingsReport
from imgsvc.http.schemas.uploads import Accepted, CsvQuery, Form, Upload, UploadHeaders
from imgsvc.http.schemas.webhooks import Deliveries, Replayed, TestDelivery
from imgsvc.http.uploads.upload import upload

_RATE_LIMITED = (Scope.UPLOAD, Scope.READ)

ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/api/upload",
        upload,
        "Post products with image URLs",
        {200: DryRun, 202: Accepted},
        (400, 408, 413, 415, 422, 429, 503),
        query=CsvQuery,
        headers=UploadHeaders,
        body={
            "application/json": Upload,
            "text/csv": None,
            "multipart/form-data": Form,
        },
        examples=examples.UPLOAD,
        scope=Scope.UPLOAD,
    ),
    Route(
        "GET",
        "/status/{id}",
        status.status,
        "Where a request stands",
        {200: Status},
        (404, 410, 429, 503),
        scope=Scope.READ,
    ),
    Route(
        "GET",
        "/api/requests",
        status.requests,
        "List requests, newest first",
        {200: RequestsPage},
        (422, 429, 503),
        query=RequestsQuery,
        scope=Scope.READ,
    ),
    Route(
        "GET",
        "/api/requests/{id}/images",
        images.images,
        "The images of a request, in input order",
        {200: ImagesPage},
        (404, 410, 422, 429, 503),
        query=ImagesQuery,
        scope=Scope.READ,
    ),
    Route(
        "GET",
        "/api/requests/{id}/report",
        savings.savings,
        "What a request saved, where it came from, how long it took",
        {200: SavingsReport},
        (404, 410, 429, 503),
        scope=Scope.READ,
    ),
    Route(
        "GET",
        "/api/requests/{id}/deliveries",
        deliveries.deliveries,
        "The attempts to deliver a request's webhook",
        {200: Deliveries},
        (404, 410, 429, 503),
        scope=Scope.READ,
    ),
    Route(
        "POST",
        "/api/requests/{id}/deliveries/replay",
        deliveries.replay,
        "Send a request's webhook once more, with the same id",
        {202: Replayed},
        (404, 409, 410, 429, 503),
        scope=Scope.UPLOAD,
    ),
    Route(
        "POST",
        "/api/requests/{id}/retry",
        changes.retry,
        "Work on failed images again",
        {202: Changed},
        (400, 404, 408, 409, 410, 413, 415, 422, 429, 503),
        body={"application/json": Retry},
        examples=examples.RETRY,
        body_may_be_missing=True,
        scope=Scope.UPLOAD,
    ),
    Route(
        "POST",
        "/api/requests/{id}/cancel",
        changes.cancel,
        "Stop a request",
        {202: Changed},
        (404, 409, 410, 429, 503),
        scope=Scope.UPLOAD,
    ),
    Route(
        "DELETE",
        "/api/requests/{id}",
        changes.erase,
        "Erase a request, its objects too",
        {202: Erased},
        (404, 429, 503),
        scope=Scope.UPLOAD,
    ),
    Route(
        "POST",
        "/api/webhooks/test",
        webhooks.test,
        "Send a signed webhook.test and tell what happened",
        {200: TestDelivery},
        (400, 408, 413, 415, 422, 429, 503),
        body={"application/json": Receiver},
        examples=examples.RECEIVER,
        scope=Scope.UPLOAD,
    ),
    Route(
        "GET",
        "/download/{id}",
        download.download,
        "The report as CSV",
        {200: "text/csv"},
        (404, 409, 410, 422, 429, 503),
        query=DownloadQuery,
        scope=Scope.READ,
    ),
    Route(
        "GET",
        "/healthz",
        ops.healthz,
        "The process runs",
        {200: Health},
        scope="open",
    ),
    Route(
        "GET",
        "/readyz",
        ops.readyz,
        "The service can do its work",
        {200: Readiness, 503: Readiness},
        scope="open",
    ),
    Route(
        "GET",
        "/metrics",
        ops.metrics,
        "Metrics for Prometheus",
        {200: "text/plain"},
        scope=Scope.ADMIN,
    ),
    Route(
        "GET",
        "/openapi.json",
        docs.openapi,
        "This document",
        {200: "application/json"},
        scope="docs",
    ),
    Route("GET", "/docs", docs.docs, "This document, to read", {200: "text/html"}, scope="docs"),
    Route(
        "GET", "/docs.js", docs.docs_script, "Part of /docs", {200: "text/javascript"}, scope="docs"
    ),
    Route("GET", "/docs.css", docs.docs_style, "Part of /docs", {200: "text/css"}, scope="docs"),
)


def add(app: web.Application) -> None:
    """Put the whole table on an application."""
    of_docs = Scope.ADMIN if app[keys.SETTINGS].auth.protect_docs else None
    app[keys.SCOPES] = {
        r.handler: r.scope if isinstance(r.scope, Scope) else of_docs if r.scope == "docs" else None
        for r in ROUTES
    }
    app[keys.POLICIES] = {r.handler: r.scope for r in ROUTES if r.scope in _RATE_LIMITED}
    # Operators' calls take any query: health checkers add one against caches, scrapers add parameters.
    app[keys.WITHOUT_QUERY] = {
        r.handler for r in ROUTES if r.scope in _RATE_LIMITED and not r.query
    }
    app[keys.OPENAPI] = _document()
    app.add_routes([web.route(r.method, r.path, r.handler) for r in ROUTES])


@functools.cache
def _document() -> bytes:
    """The OpenAPI document; making it takes long, and it is the same for every application."""
    return orjson.dumps(openapi.document(ROUTES))
