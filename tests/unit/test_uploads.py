"""However much is wrong with an upload, finding it out costs little."""

from __future__ import annotations

import time

import pytest

from imgsvc.domain.validation import MOST
from imgsvc.http.uploads.parse import parse
from imgsvc.http.uploads.read import UploadBody
from imgsvc.http.uploads.validate import Validated, validate
from imgsvc.outbound.guard import Guard
from imgsvc.runtime.settings import Http, Net

MANY = 500_000
PRODUCT = b'{"serialNumber":"1","productName":"A","inputUrls":["https://example.com/a"]'
KEYS = b",".join(b'"%x":1' % i for i in range(MANY))
ONES = b"1," * MANY + b"1"


def validated(body: bytes, content_type: str = "application/json", **beside: bytes) -> Validated:
    parsed = parse(UploadBody(content_type, body, beside), Http())
    return validate(parsed, Http(), 0, Guard(Net()))


@pytest.mark.parametrize(
    "body",
    [
        b'{"products":[' + PRODUCT.replace(b'"https://example.com/a"', ONES) + b"}]}",
        b'{"products":[' + PRODUCT + b"," + KEYS + b"}]}",
        b'{"products":[' + PRODUCT + b"}]," + KEYS + b"}",
        b'{"products":[' + PRODUCT + b'}],"options":{' + KEYS + b"}}",
        b'{"products":['
        + PRODUCT
        + b'}],"webhook":{"url":"https://example.com","events":['
        + ONES
        + b"]}}",
        b'{"products":[' + ONES + b"]}",
        b'{"products":[' + b"{}," * MANY + b"{}]}",
        b"[" * MANY,
    ],
    ids=["urls", "fields", "top", "options", "events", "no products", "empty products", "deep"],
)
def test_a_hostile_body_is_refused_cheaply(body: bytes) -> None:
    """Left to itself, pydantic remembers each problem: 2 MB became 1 GB, in three seconds."""
    begin = time.process_time()
    found = validated(body)
    assert time.process_time() - begin < 1.5
    assert 0 < len(found.problems.listed) <= MOST


def test_a_hostile_field_beside_a_csv_is_refused_cheaply() -> None:
    csv = b"Serial Number,Product Name,Input Image Urls\n1,A,https://example.com/a\n"
    begin = time.process_time()
    found = validated(csv, "multipart/form-data", options=b"{" + KEYS + b"}")
    assert time.process_time() - begin < 1.5
    assert found.problems.count == 1


def test_what_is_right_is_looked_at_beside_what_is_wrong() -> None:
    found = validated(
        b'{"webhookUrl":"hook","options":{"size":1},"x":1,"products":[' + PRODUCT + b"}]}"
    )
    assert sorted(str(each["loc"]) for each in found.problems.listed) == [
        "['options', 'size']",
        "['webhookUrl']",
        "['x']",
    ]
