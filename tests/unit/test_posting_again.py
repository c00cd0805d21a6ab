"""Whatever is accepted as JSON comes back the same when its report is posted as CSV."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from imgsvc.domain.model import ImageStatus
from imgsvc.http.uploads.parse import parse
from imgsvc.http.uploads.read import UploadBody
from imgsvc.http.uploads.validate import Validated, validate
from imgsvc.outbound.guard import Guard
from imgsvc.reports import report_csv
from imgsvc.reports.report_csv import Columns, ReportImage, ReportRow
from imgsvc.runtime.settings import Http, Net

LIMITS = Http()
SEPARATORS = [",", ";", "|", "\uff0c", "\uff1b", "\uff5c", "\u3001", "\n", " ", "\t", "\u200b"]

texts = st.lists(
    st.sampled_from([*SEPARATORS, *"'=+-@\"\r\0\\[]1", "'=", "\ufeff", "\ud83d", "\ude00", "\xa0"])
    | st.text(st.characters(codec="utf-8"), max_size=5),
    max_size=5,
).map("".join)
texts |= texts.map("A{}".format)  # which is seldom refused
urls = st.lists(
    st.sampled_from(
        [*SEPARATORS, "http://b/", "https://b/", "HTTP://", '"', "'", "[", "\xe9", "%20"]
    )
    | st.text("ab:/?#&=.%", max_size=3),
    max_size=6,
).map("".join)
products = st.lists(
    st.fixed_dictionaries(
        {
            "serialNumber": texts,
            "productName": texts,
            "inputUrls": st.lists(
                urls.map("https://example.com/{}".format), min_size=1, max_size=4
            ),
        }
    ),
    min_size=1,
    max_size=3,
)


def as_json(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()


def validated(content_type: str, body: bytes) -> Validated:
    parsed = parse(UploadBody(content_type, body, {}), LIMITS)
    return validate(parsed, LIMITS, 0, Guard(Net()))


def reported(upload: Validated, columns: Columns) -> bytes:
    """The report of a request in which every image failed."""
    rows = (
        ReportRow(
            str(product.serial_number),
            product.product_name,
            [
                ReportImage(
                    input_url=url,
                    status=ImageStatus.FAILED,
                    error_code="FETCH_STATUS",
                    error_detail="The origin said: 404, sorry",
                )
                for url in product.input_urls
            ],
        )
        for _, product in upload.products
    )
    return report_csv.header(columns) + b"".join(report_csv.line(row, columns) for row in rows)


def told(upload: Validated) -> list[tuple[str, str, list[str]]]:
    return [
        (str(product.serial_number), product.product_name, [*product.input_urls])
        for _, product in upload.products
    ]


def check(body: dict[str, Any], columns: Columns) -> None:
    before = validated("application/json", as_json(body))
    assert before.problems.listed == []
    after = validated("text/csv", reported(before, columns))
    assert after.problems.listed == []
    assert told(after) == told(before)


@settings(max_examples=100, suppress_health_check=[HealthCheck.filter_too_much])
@given(columns=st.sampled_from(["basic", "full", "failed"]), products=products)
def test_every_report_can_be_posted_again(columns: Columns, products: list[dict[str, Any]]) -> None:
    body = {"products": products}
    assume(not validated("application/json", as_json(body)).problems.count)
    check(body, columns)


ODD = {
    "a comma before http": ["https://example.com/a,http://b"],
    "a semicolon, a bar": ["https://example.com/a;https://b", "https://example.com/a|http://b"],
    "separators at the end": ["https://example.com/a,", "https://example.com/b;|"],
    "a bracket": ["https://example.com/[a]", 'https://example.com/"a",http://b'],
    "a hundred long ones": ["https://example.com/" + "x" * 1430] * 100,
    "a hundred long ones for JSON": ["https://example.com/" + '",http://' * 150] * 100,
}


@pytest.mark.parametrize("urls", ODD.values(), ids=ODD)
def test_odd_urls_can_be_posted_again(urls: list[str]) -> None:
    product = {"serialNumber": "007", "productName": " 'twas ", "inputUrls": urls}
    check({"products": [product]}, "full")


@pytest.mark.parametrize("field", ["serialNumber", "productName"])
@pytest.mark.parametrize(
    ("text", "reason"), [("a\0b", "NUL"), (" \n", "blank"), ("\u3000", "blank")]
)
def test_what_no_report_can_hold_is_refused(field: str, text: str, reason: str) -> None:
    product = {"serialNumber": "1", "productName": "A", "inputUrls": ["https://example.com/"]}
    found = validated("application/json", as_json({"products": [{**product, field: text}]}))
    (problem,) = found.problems.listed
    assert problem["loc"] == ["products", 0, field]
    assert reason in problem["msg"]


def test_urls_longer_together_than_a_cell_are_refused() -> None:
    product = {
        "serialNumber": "1",
        "productName": "A",
        "inputUrls": ["https://example.com/" + "x" * 1_000_000] * 2,
    }
    (problem,) = validated("application/json", as_json({"products": [product]})).problems.listed
    assert problem["loc"] == ["products", 0, "inputUrls"]
    assert "characters together; 1048576 are the most" in problem["msg"]
