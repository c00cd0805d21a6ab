"""Bodies as people send them, for the OpenAPI document; a test posts each."""

from __future__ import annotations

from typing import Any

_CSV = (
    "Serial Number,Product Name,Input Image Urls\n"
    '1,Chair,"https://example.com/a.jpg, https://example.com/b.png"\n'
)

# Media type -> body; of a form its fields.
UPLOAD: dict[str, Any] = {
    "application/json": {
        "products": [
            {
                "serialNumber": "1",
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
