"""Tour 10: a refusal says which field is wrong and what to do about it."""

from __future__ import annotations

from tests.support import Service


async def test_a_refusal_names_every_place(service: Service) -> None:
    body = {
        "products": [
            {
                "serialNumber": "1",
                "productName": "Chair",
                "inputUrls": ["https://example.com/a.jpg", "ftp://example.com/b.jpg"],
            },
        ],
        "options": {"quality": 75},
        "webhookUrl": "http://user:password@example.com/hook",
    }
    status, problem = await service.post("/api/upload", json=body)
    assert status == 422
    assert (problem["code"], problem["title"]) == ("VALIDATION_FAILED", "Unprocessable Entity")
    assert {tuple(error["loc"]): error["msg"] for error in problem["errors"]} == {
        ("webhookUrl",): "The URL must not contain a user name or password.",
        ("products", 0, "inputUrls", 1): "The URL must start with http:// or https://.",
    }

    # Nothing is half-accepted.
    assert (await service.get("/api/requests"))[1]["requests"] == []
