"""Examples for the OpenAPI document; the tests post and check each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from imgsvc.http.schemas.dry_run import DryRun
from imgsvc.http.schemas.health import Health, Readiness
from imgsvc.http.schemas.images import ImagesPage
from imgsvc.http.schemas.requests import Changed, Erased, RequestsPage, Status
from imgsvc.http.schemas.savings import SavingsReport
from imgsvc.http.schemas.uploads import Accepted
from imgsvc.http.schemas.webhooks import Deliveries, Replayed, TestDelivery

ID = "57704244-c223-4823-a94b-8f2111e7d84a"
_OUTPUT = f"https://storage.googleapis.com/imgsvc/{ID}/0-0.webp"
_CSV = (
    "Serial Number,Product Name,Input Image Urls\n"
    '1,Chair,"https://example.com/a.jpg, https://example.com/b.png"\n'
)

# Media type -> body; for a form its fields.
UPLOAD: dict[str, Any] = {
    "application/json": {
        "products": [
            {
                "serialNumber": 1,
                "productName": "Chair",
                "inputUrls": ["https://example.com/a.jpg", "https://example.com/b.png"],
            }
        ],
        "webhookUrl": "https://example.com/hook",
        "options": {"format": "webp", "quality": 80},
        "expiresInDays": 30,
    },
    "text/csv": _CSV,
    "multipart/form-data": {
        "file": _CSV,
        "webhookUrl": "https://example.com/hook",
        "options": '{"format": "webp", "quality": 80}',
    },
}
RETRY: dict[str, Any] = {
    "application/json": {"codes": ["FETCH_STATUS", "FETCH_TIMEOUT"], "products": [0, "SKU-2"]}
}
RECEIVER: dict[str, Any] = {"application/json": {"url": "https://example.com/hook"}}

_STATUS: dict[str, Any] = {
    "requestId": ID,
    "status": "PARTIAL",
    "processedProducts": 1,
    "totalProducts": 1,
    "processedImages": 2,
    "failedImages": 1,
    "totalImages": 2,
    "bytesIn": 112525,
    "bytesOut": 43442,
    "sharedImages": 0,
    "reusedImages": 0,
    "createdAt": "2026-01-31T12:00:00.000Z",
    "updatedAt": "2026-01-31T12:00:01.250Z",
    "webhook": {"status": "DELIVERED", "attempts": 1},
}
_OF_IMAGE = {"serialNumber": 1, "productName": "Chair", "product": 0}

# Status, and schema or media type -> an answer.
ANSWERS: Mapping[tuple[int, type[BaseModel] | str], Any] = {
    (202, Accepted): {"requestId": ID, "status": "PENDING"},
    (200, DryRun): {
        "valid": False,
        "products": 2,
        "images": 3,
        "distinctUrls": 2,
        "problems": [
            {
                "loc": ["line", 3, "Product Name"],
                "msg": "is empty; fill it in or remove the line",
            }
        ],
        "moreProblems": 0,
        "duplicates": [
            {
                "field": "inputUrl",
                "value": "https://example.com/a.jpg",
                "count": 2,
                "locs": [["line", 2, "inputUrls", 0], ["line", 3, "inputUrls", 0]],
            }
        ],
        "moreDuplicates": 0,
    },
    (200, Status): _STATUS,
    (200, RequestsPage): {"requests": [_STATUS], "nextCursor": None},
    (200, ImagesPage): {
        "images": [
            {
                **_OF_IMAGE,
                "index": 0,
                "inputUrl": "https://example.com/a.jpg",
                "outputUrl": _OUTPUT,
                "status": "COMPLETED",
                "error": None,
                "bytesIn": 112525,
                "bytesOut": 43442,
                "format": "webp",
                "width": 640,
                "height": 427,
            },
            {
                **_OF_IMAGE,
                "index": 1,
                "inputUrl": "https://example.com/b.png",
                "outputUrl": None,
                "status": "FAILED",
                "error": {
                    "code": "FETCH_STATUS",
                    "detail": "The origin answered with status 404.",
                },
                "bytesIn": None,
                "bytesOut": None,
                "format": None,
                "width": None,
                "height": None,
            },
        ],
        "nextCursor": None,
    },
    (200, SavingsReport): {
        "requestId": ID,
        "status": "PARTIAL",
        "partial": False,
        "images": {"total": 2, "pending": 0, "completed": 1, "failed": 1, "cancelled": 0},
        "bytesIn": 112525,
        "bytesOut": 43442,
        "savedShare": 0.6139,
        "formats": [
            {
                "format": "webp",
                "images": 1,
                "bytesIn": 112525,
                "bytesOut": 43442,
                "savedShare": 0.6139,
            }
        ],
        "perImage": {
            "bytesIn": {"p50": 112525, "p90": 112525, "p99": 112525},
            "bytesOut": {"p50": 43442, "p90": 43442, "p99": 43442},
            "savedShare": {"p50": 0.6139, "p90": 0.6139, "p99": 0.6139},
        },
        "errors": [{"code": "FETCH_STATUS", "images": 1}],
        "slowestOrigins": [
            {"origin": "example.com", "images": 2, "failed": 1, "medianMs": 51, "maxMs": 53}
        ],
        "stagesMs": {
            "fetch": {"p50": 51, "p95": 53},
            "compress": {"p50": 142, "p95": 142},
            "upload": {"p50": 12, "p95": 12},
        },
    },
    (200, Deliveries): {
        "attempts": [
            {
                "attempt": 1,
                "at": "2026-01-31T12:00:01.270Z",
                "status": 204,
                "latencyMs": 35,
                "error": None,
            }
        ],
        "nextAttemptAt": None,
    },
    (202, Replayed): {"requestId": ID, "webhook": {"status": "PENDING", "attempts": 0}},
    (202, Changed): {"requestId": ID, "status": "PROCESSING"},
    (202, Erased): {"requestId": ID, "erased": False},
    (200, TestDelivery): {"delivered": True, "status": 204, "latencyMs": 35, "error": None},
    (200, Health): {"status": "ok"},
    (200, Readiness): {
        "status": "ready",
        "checks": {"redis": "ok", "mongo": "ok", "bucket": "ok", "process": "ok"},
    },
    (503, Readiness): {
        "status": "not ready",
        "checks": {"redis": "ok", "mongo": "no answer within 4 s", "bucket": "ok", "process": "ok"},
    },
    (200, "text/csv"): (
        "Serial Number,Product Name,Input Image URLs,Output Image URLs\r\n"
        '"1","Chair","https://example.com/a.jpg, https://example.com/b.png",'
        f'"{_OUTPUT}, "\r\n'
    ),
}
