"""An origin that keeps robots out is named, with what its operator needs, and left alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from tests.photos import photo
from tests.support import Origin, Service

Start = Callable[..., Any]
PAGE = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body></body></html>"
HEADERS = {"Server": "cloudflare", "CF-RAY": "8f1c2d3e4a5b6c7d-FRA", "cf-mitigated": "challenge"}


def wall(status: int) -> web.Response:
    return web.Response(status=status, body=PAGE, content_type="text/html", headers=HEADERS)


@pytest.mark.parametrize("status", [200, 403, 429, 503])
async def test_a_wall_fails_its_image_with_a_sentence_to_pass_on_and_is_left_alone(
    start_service: Start, origin: Origin, neighbour: Origin, status: int
) -> None:
    service: Service = await start_service(
        fetch={"rest_s": 0.1, "longest_rest_s": 0.4, "patience": 2},
        net={"allow": ["127.0.0.0/8"], "user_agent": "imgsvc-of-shop.example"},
    )

    async def answer(_: web.Request) -> web.Response:
        return wall(status)

    urls = [origin.add(f"{n}.jpg", answer) for n in range(40)]
    request_id = await service.upload([urls, [neighbour.url("rocket.jpg")]])
    await service.finished(request_id)
    *failed, other = await service.images(request_id)
    assert {image["error"]["code"] for image in failed} == {"FETCH_BLOCKED"}
    assert other["status"] == "COMPLETED"
    told = next(d for image in failed if "8f1c2d3e" in (d := image["error"]["detail"]))
    assert re.fullmatch(
        rf"127\.0\.0\.1 answered {status} with a page or a challenge for robots, not with the image "
        r"\(text/html, server: cloudflare, cf-ray: 8f1c2d3e4a5b6c7d-FRA, cf-mitigated: challenge\)\. "
        r'Ask its operator to let requests through whose User-Agent is "imgsvc-of-shop\.example"\.',
        told,
    )
    assert len(origin.asked) < 40, "no robot knocks as often as it has images"
    async with service.session.get(f"{service.url}/metrics") as response:
        text = await response.text()
    assert re.search(r"imgsvc_origin_rests_total [1-9]", text)


async def test_pages_that_are_no_walls_stay_what_they_were(
    service: Service, origin: Origin
) -> None:
    async def missing(_: web.Request) -> web.Response:
        return web.Response(status=404, body=PAGE, content_type="text/html", headers=HEADERS)

    async def forbidden(_: web.Request) -> web.Response:
        return web.Response(status=403, text="<Error/>", content_type="application/xml")

    async def login(_: web.Request) -> web.Response:
        return web.Response(
            body=PAGE.replace(b"Just a moment...", b"Sign in"), content_type="text/html"
        )

    async def mislabelled(_: web.Request) -> web.Response:
        return web.Response(body=photo("coffee.png"), content_type="text/html", headers=HEADERS)

    handlers = {"a": missing, "b": forbidden, "c": login, "d": mislabelled}
    request_id = await service.upload([[origin.add(name, how) for name, how in handlers.items()]])
    await service.finished(request_id)
    found = [(image["error"] or {}).get("code") for image in await service.images(request_id)]
    # What says that it stopped the request is believed whatever its status.
    assert found == ["FETCH_BLOCKED", "FETCH_STATUS", "NOT_AN_IMAGE", None]
