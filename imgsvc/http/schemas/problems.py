"""Why a call was refused (RFC 9457)."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict

from imgsvc.domain.model import Shape


class Problem(Shape):
    """Why a call was refused (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Unprocessable Entity",
                    "status": 422,
                    "code": "VALIDATION_FAILED",
                    "detail": "products.0.productName: Field required",
                    "errors": [{"loc": ["products", 0, "productName"], "msg": "Field required"}],
                }
            ]
        }
    )

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[dict[str, Any]] | None = None
