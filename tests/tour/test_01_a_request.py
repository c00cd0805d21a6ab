"""Tour 1: products in, smaller images out."""

from __future__ import annotations

from tests.support import Origin, Service


async def test_products_go_in_and_smaller_images_come_out(service: Service, origin: Origin) -> None:
    # A request is products, each with the addresses of its images.
    request_id = await service.upload(
        [[origin.url("rocket.jpg"), origin.url("coffee.png")], [origin.url("retina.jpg")]]
    )

    # It is worked on in the background; the status object tells how far it is.
    status = await service.finished(request_id)
    assert status["status"] == "COMPLETED"
    assert status["processedImages"] == status["totalImages"] == 3
    assert status["processedProducts"] == status["totalProducts"] == 2
    assert status["bytesOut"] < status["bytesIn"]

    # Every image has a result of its own, in the order in which it was posted.
    images = await service.images(request_id)
    assert [(i["product"], i["index"]) for i in images] == [(0, 0), (0, 1), (1, 0)]
    assert [i["format"] for i in images] == ["jpeg", "png", "jpeg"]
    for image in images:
        assert len(await service.stored(image["outputUrl"])) == image["bytesOut"]
