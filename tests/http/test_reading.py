"""Status, images, lists and reports."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from tests.support import Origin, Service

STATUS_FIELDS = [
    "requestId",
    "status",
    "processedProducts",
    "totalProducts",
    "processedImages",
    "failedImages",
    "totalImages",
    "bytesIn",
    "bytesOut",
    "sharedImages",
    "reusedImages",
    "createdAt",
    "updatedAt",
    "webhook",
]
IMAGE_FIELDS = [
    "serialNumber",
    "productName",
    "product",
    "index",
    "inputUrl",
    "outputUrl",
    "status",
    "error",
    "bytesIn",
    "bytesOut",
    "format",
    "width",
    "height",
]


@pytest.fixture
async def partial(service: Service, origin: Origin) -> str:
    """A finished request: the second image of the first product is missing at its origin."""
    request_id = await service.upload(
        [
            [origin.url("rocket.jpg"), origin.url("none.jpg"), origin.url("coffee.png")],
            [origin.url("chelsea.png")],
        ]
    )
    await service.finished(request_id)
    return request_id


async def test_the_status_object_has_exactly_the_promised_fields(
    service: Service, partial: str
) -> None:
    status, found = await service.get(f"/status/{partial}")
    assert status == 200
    assert list(found) == STATUS_FIELDS
    assert found["status"] == "PARTIAL"
    assert (found["processedImages"], found["failedImages"], found["totalImages"]) == (4, 1, 4)
    assert (found["processedProducts"], found["totalProducts"]) == (2, 2)
    assert found["webhook"] is None
    assert found["createdAt"].endswith("Z")
    assert found["createdAt"] <= found["updatedAt"]


async def test_all_failed_is_failed(service: Service, origin: Origin) -> None:
    found = await service.finished(await service.upload([[origin.url("none.jpg")]]))
    assert (found["status"], found["failedImages"], found["processedImages"]) == ("FAILED", 1, 1)


async def test_images_come_in_input_order_and_in_pages(service: Service, partial: str) -> None:
    seen: list[Any] = []
    cursor: dict[str, str] = {}
    while True:
        status, page = await service.get(f"/api/requests/{partial}/images", limit=3, **cursor)
        assert status == 200
        assert list(page) == ["images", "nextCursor"]
        seen += page["images"]
        if page["nextCursor"] is None:
            break
        cursor = {"cursor": page["nextCursor"]}
    assert [(i["product"], i["index"]) for i in seen] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert all(list(i) == IMAGE_FIELDS for i in seen)
    failed = seen[1]
    assert failed["status"] == "FAILED"
    assert failed["error"] == {
        "code": "FETCH_STATUS",
        "detail": "The origin answered with status 404.",
    }
    assert failed["outputUrl"] is failed["bytesIn"] is failed["format"] is None


async def test_images_can_be_asked_for_by_status(service: Service, partial: str) -> None:
    _, page = await service.get(f"/api/requests/{partial}/images", status="FAILED")
    assert [(i["product"], i["index"]) for i in page["images"]] == [(0, 1)]


async def test_the_report_leaves_an_empty_place_and_never_shifts(
    service: Service, partial: str
) -> None:
    rows = await service.report(partial)
    assert list(rows[0]) == [
        "Serial Number",
        "Product Name",
        "Input Image URLs",
        "Output Image URLs",
    ]
    outputs = rows[0]["Output Image URLs"].split(", ")
    assert len(outputs) == len(rows[0]["Input Image URLs"].split(", ")) == 3
    assert [bool(url) for url in outputs] == [True, False, True]
    images = await service.images(partial)
    assert outputs[2] == images[2]["outputUrl"]


async def test_the_full_report_adds_errors_and_sizes(service: Service, partial: str) -> None:
    rows = await service.report(partial, columns="full")
    assert rows[0]["Error Codes"].split(", ") == ["", "FETCH_STATUS", ""]
    assert rows[1]["Bytes In"] == "240512"


async def test_the_failed_rows_can_be_posted_again(service: Service, partial: str) -> None:
    async with service.session.get(f"{service.url}/download/{partial}?only=failed") as response:
        csv = await response.read()
        assert response.content_type == "text/csv"
        assert "attachment" in response.headers["Content-Disposition"]
    status, answer = await service.post(
        "/api/upload", data=csv, headers={"Content-Type": "text/csv"}
    )
    assert status == 202, answer
    again = await service.finished(answer["requestId"])
    assert (again["totalProducts"], again["totalImages"]) == (1, 1)


async def test_the_report_waits_for_the_end_unless_asked(
    service: Service, origin: Origin, hold: Any
) -> None:
    request_id = await service.upload([[origin.add("slow.jpg", hold.handler)]])
    status, problem = await service.get(f"/download/{request_id}")
    assert (status, problem["code"]) == (409, "NOT_FINISHED")
    rows = await service.report(request_id, partial="true")
    assert rows[0]["Output Image URLs"] == ""
    hold.release()
    await service.finished(request_id)


async def test_requests_are_listed_newest_first_and_in_pages(
    service: Service, origin: Origin
) -> None:
    ids = [await service.upload([[origin.url("none.jpg")]]) for _ in range(3)]
    for request_id in ids:
        await service.finished(request_id)
    _, first = await service.get("/api/requests", limit=2)
    _, second = await service.get("/api/requests", limit=2, cursor=first["nextCursor"])
    listed = [r["requestId"] for r in first["requests"] + second["requests"]]
    assert listed == ids[::-1]
    assert second["nextCursor"] is None
    assert list(first["requests"][0]) == STATUS_FIELDS
    _, none = await service.get("/api/requests", status="COMPLETED")
    assert none["requests"] == []


@pytest.mark.parametrize(
    "path",
    [
        "/status/nope",
        "/download/nope",
        "/api/requests/nope/images",
        "/api/requests/nope/deliveries",
        "/nowhere",
    ],
)
async def test_what_is_not_there_is_404(service: Service, path: str) -> None:
    status, problem = await service.get(path)
    assert (status, problem["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ({"limit": "0"}, "limit"),
        ({"cursor": "nonsense"}, "cursor"),
        ({"status": "LOST"}, "status"),
        ({"page": "2"}, "page"),
    ],
)
async def test_a_wrong_query_names_the_parameter(
    service: Service, partial: str, query: dict[str, str], place: str
) -> None:
    status, problem = await service.get(f"/api/requests/{partial}/images", **query)
    assert (status, problem["errors"][0]["loc"]) == (422, [place])


@pytest.mark.parametrize("time", ["0.5", "1767225600", "2026-01-31", "20260131T000000Z"])
async def test_a_time_is_written_out(service: Service, time: str) -> None:
    """A bare number would be a time too, of 1970 or of 2026, whichever seems likelier."""
    status, problem = await service.get("/api/requests", createdAfter=time)
    assert (status, problem["errors"][0]["loc"]) == (422, ["createdAfter"])
    assert problem["detail"] == "createdAfter: a time is written like 2026-01-31T12:00:00Z"


async def test_times_narrow_a_list_down_whatever_their_zone(
    service: Service, origin: Origin
) -> None:
    ids = [await service.upload([[origin.url("none.jpg")]]) for _ in range(3)]
    made = [datetime.fromisoformat((await service.finished(each))["createdAt"]) for each in ids]
    cut = made[1].isoformat(timespec="milliseconds")
    east = made[1].astimezone(timezone(timedelta(hours=5, minutes=30)))
    zulu = cut.replace("+00:00", "Z")
    for time in (zulu, cut, cut.replace("+", " "), east.isoformat(timespec="milliseconds")):
        for query, listed in (({"createdAfter": time}, [2]), ({"createdBefore": time}, [0])):
            status, page = await service.get("/api/requests", **query)
            assert status == 200, (time, page)
            assert [found["requestId"] for found in page["requests"]] == [ids[n] for n in listed]


async def test_a_wrong_method_is_told_the_right_one(service: Service) -> None:
    async with service.session.delete(f"{service.url}/api/upload") as response:
        assert response.status == 405
        assert response.headers["Allow"] == "POST"
        assert (await response.json())["code"] == "METHOD_NOT_ALLOWED"
