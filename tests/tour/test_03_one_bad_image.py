"""Tour 3: one bad image gets its own error code and never touches its neighbours."""

from __future__ import annotations

from tests.support import Origin, Service


async def test_every_image_ends_on_its_own(service: Service, origin: Origin) -> None:
    text = origin.add("text.jpg", b"this is no picture")
    half = origin.add("half.jpg", origin.photo("rocket.jpg")[:50_000])
    request_id = await service.upload(
        [
            [
                origin.url("rocket.jpg"),
                text,
                half,
                origin.url("missing.jpg"),
                origin.url("coffee.png"),
            ]
        ]
    )

    status = await service.finished(request_id)
    assert status["status"] == "PARTIAL"
    assert (status["processedImages"], status["failedImages"]) == (5, 3)

    images = await service.images(request_id)
    assert [image["error"] and image["error"]["code"] for image in images] == [
        None,
        "NOT_AN_IMAGE",
        "IMAGE_CORRUPT",
        "FETCH_STATUS",
        None,
    ]

    # In the report each failure leaves an empty place: results never shift.
    (row,) = await service.report(request_id)
    assert [bool(url) for url in row["Output Image URLs"].split(", ")] == [
        True,
        False,
        False,
        False,
        True,
    ]
