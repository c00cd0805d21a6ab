"""GET /api/requests/{id}/report: what was saved, where it came from, how long it took."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from tests.photos import photo
from tests.support import Origin, Service, wait_until


async def late(_: web.Request) -> web.Response:
    await asyncio.sleep(0.3)
    return web.Response(body=photo("coffee.png"))


async def test_a_finished_request_is_told_in_full(service: Service, origin: Origin) -> None:
    async with Origin() as slow:
        request_id = await service.upload(
            [
                [origin.url("rocket.jpg"), origin.url("none.jpg")],
                [slow.add("a.png", late), origin.add("text.jpg", b"no picture")],
            ]
        )
        status = await service.finished(request_id)
        code, report = await service.get(f"/api/requests/{request_id}/report")
        slow_host, quick_host = urlsplit(slow.base).netloc, urlsplit(origin.base).netloc
    assert code == 200
    assert (report["requestId"], report["status"]) == (request_id, "PARTIAL")
    assert report["partial"] is False
    assert (report["images"]["completed"], report["images"]["failed"]) == (2, 2)
    assert (report["bytesIn"], report["bytesOut"]) == (status["bytesIn"], status["bytesOut"])
    assert 0 < report["savedShare"] < 1
    assert {found["format"] for found in report["formats"]} == {"jpeg", "png"}
    codes = {found["code"]: found["images"] for found in report["errors"]}
    assert codes == {"FETCH_STATUS": 1, "NOT_AN_IMAGE": 1}
    slowest, quick = report["slowestOrigins"]
    assert (slowest["origin"], slowest["images"], slowest["failed"]) == (slow_host, 1, 0)
    assert 300 <= slowest["medianMs"] == slowest["maxMs"] == report["stagesMs"]["fetch"]["p95"]
    # Also of images that failed it is told how long fetching them took.
    assert (quick["origin"], quick["images"], quick["failed"]) == (quick_host, 3, 2)
    assert report["stagesMs"]["compress"]["p95"] > 0
    assert report["stagesMs"]["upload"]["p50"] >= 0


async def test_a_running_request_is_told_as_far_as_it_is(
    service: Service, origin: Origin, hold: Any
) -> None:
    held = origin.add("held.jpg", hold.handler)
    request_id = await service.upload([[origin.url("rocket.jpg")], [held]])

    async def one_is_done() -> Any:
        _, report = await service.get(f"/api/requests/{request_id}/report")
        return report if report["images"]["completed"] else None

    report = await wait_until(one_is_done, "one image is done")
    assert report["partial"] is True
    assert report["images"]["pending"] == 1
    assert report["bytesIn"] == len(origin.photo("rocket.jpg"))
    hold.release()
    await service.finished(request_id)
