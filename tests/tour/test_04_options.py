"""Tour 4: options choose format and quality; results are never worse than the sources."""

from __future__ import annotations

import pytest

from tests.support import Origin, Service


async def test_quality_trades_bytes(service: Service, origin: Origin) -> None:
    sizes = []
    for quality in (30, 60, 90):
        request_id = await service.upload(
            [[origin.url("retina.jpg")]], options={"quality": quality}
        )
        await service.finished(request_id)
        sizes.append((await service.images(request_id))[0]["bytesOut"])
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    assert sizes[-1] <= len(origin.photo("retina.jpg"))


@pytest.mark.parametrize("format_", ["jpeg", "png", "webp", "avif"])
async def test_a_format_can_be_asked_for(service: Service, origin: Origin, format_: str) -> None:
    request_id = await service.upload([[origin.url("rocket.jpg")]], options={"format": format_})
    await service.finished(request_id)
    (image,) = await service.images(request_id)
    assert image["format"] == format_
    async with service.session.get(image["outputUrl"]) as response:
        assert response.content_type == f"image/{format_}"
        assert "max-age" in response.headers["Cache-Control"]
