"""Only the documented names exist: each field of each body and query, spelt otherwise, is refused.

The fields are read from the OpenAPI document, so that a new one is tried by itself.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import pytest

from imgsvc.http import openapi
from imgsvc.http.routes import ROUTES
from tests.support import Service

Json = dict[str, Any]

DOCUMENT: Json = json.loads(json.dumps(openapi.document(ROUTES)))
JSON = {"Content-Type": "application/json"}
CSV = "Serial Number,Product Name,Input Image Urls\n1,A,https://example.com/a\n"


def words(name: str) -> list[str]:
    return re.findall(r"[A-Za-z][a-z0-9]*", name)


SPELLINGS: dict[str, Callable[[str], str]] = {
    "snake_case": lambda name: "_".join(words(name)).lower(),
    "kebab-case": lambda name: "-".join(words(name)).lower(),
    "PascalCase": lambda name: "".join(word.title() for word in words(name)),
    "lowercase": str.lower,
    "UPPER_CASE": lambda name: "_".join(words(name)).upper(),
    "with a blank": lambda name: f" {name}",
    "plural or singular": lambda name: name.removesuffix("s") if name.endswith("s") else f"{name}s",
}


def spellings(name: str) -> set[str]:
    return {spelt for spell in SPELLINGS.values() if (spelt := spell(name)) != name}


def resolved(schema: Json) -> Json:
    """A schema without references, and of a choice with null the other one."""
    for choice in schema.get("anyOf", ()):
        if choice != {"type": "null"}:
            return resolved(choice)
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return resolved(DOCUMENT["components"]["schemas"][name])
    return schema


def example(schema: Json) -> Any:
    """Something of a schema in which every field is there."""
    schema = resolved(schema)
    for choice in (schema.get("const"), *schema.get("enum", ())):
        if choice is not None:
            return choice
    if schema["type"] == "object":
        return {name: example(below) for name, below in schema.get("properties", {}).items()}
    if schema["type"] == "array":
        return [example(schema["items"])]
    return {"string": "https://example.com/a", "boolean": True}.get(schema["type"], 1)


def objects(schema: Json, place: tuple[str | int, ...] = ()) -> Iterator[tuple[Any, Json]]:
    """Every object within a schema that has fields, with its place in ``example``."""
    schema = resolved(schema)
    if "properties" in schema:
        yield place, schema
        for name, below in schema["properties"].items():
            yield from objects(below, (*place, name))
    if schema.get("type") == "array":
        yield from objects(schema["items"], (*place, 0))


def operations() -> Iterator[tuple[str, str, Json]]:
    for path, calls in DOCUMENT["paths"].items():
        for method, call in calls.items():
            yield method.upper(), path, call


BODIES = [
    (path, place, schema, content["application/json"]["schema"])
    for _, path, call in operations()
    if "application/json" in (content := call.get("requestBody", {}).get("content", {}))
    for place, schema in objects(content["application/json"]["schema"])
]


@pytest.fixture
async def ended(service: Service) -> str:
    """An ended request with a failed image."""
    request_id = await service.upload([["http://127.0.0.1:1/none.jpg"]])
    await service.finished(request_id)
    return request_id


async def test_every_field_of_every_body_has_one_name(service: Service, ended: str) -> None:
    tried = 0
    for path, place, schema, root in BODIES:
        for name, spelt in [(n, s) for n in schema["properties"] for s in spellings(n)]:
            body = copy.deepcopy(example(root))
            if "webhook" in body:  # one of the two
                body.pop("webhookUrl" if "webhook" in (*place, name) else "webhook", None)
            holder = body
            for step in place:
                holder = holder[step]
            if name not in holder:
                holder[name] = example(schema["properties"][name])
            holder[spelt] = holder.pop(name)
            status, problem = await service.post(path.replace("{id}", ended), json=body)
            assert status == 422, (path, place, spelt, problem)
            [found] = [each for each in problem["errors"] if each["loc"] == [*place, spelt]]
            assert name in found["msg"], found
            tried += 1
    assert tried >= 60
    assert len((await service.get("/api/requests"))[1]["requests"]) == 1


def test_every_object_is_closed_in_the_document() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        if name != "UploadHeaders" and "properties" in schema:
            assert schema["additionalProperties"] is False, name


def test_no_documented_name_has_another_spelling_than_camel_case() -> None:
    names = {
        name
        for schema in DOCUMENT["components"]["schemas"].values()
        for name in schema.get("properties", {})
    }
    assert {name for name in names if not re.fullmatch(r"[a-z][A-Za-z0-9]*", name)} == {
        "Idempotency-Key"
    }


async def test_every_parameter_of_every_query_has_one_name(service: Service, ended: str) -> None:
    for method, path, call in operations():
        known = [each for each in call.get("parameters", ()) if each["in"] == "query"]
        for parameter in known:
            for spelt in spellings(parameter["name"]):
                value = str(example(parameter["schema"]))
                status, problem = await called(service, method, path, ended, {spelt: value})
                assert status == 422, (path, spelt, problem)
                [found] = problem["errors"]
                assert found["loc"] == [spelt]
                assert parameter["name"] in found["msg"]


OPERATORS = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs.js", "/docs.css"}


async def test_operators_may_add_any_query_to_their_calls(service: Service) -> None:
    """Health checkers add what keeps caches out; Prometheus sends the parameters of its job."""
    for path, query in itertools.product(
        OPERATORS, ("x=1", "verbose", "_=1700000000&cb=hb_1", "name[]=a&name[]=b", "limit=", "%FF")
    ):
        async with service.session.get(f"{service.url}{path}?{query}") as response:
            assert response.status == 200, (path, query)


async def test_every_call_of_clients_refuses_a_query_that_it_does_not_know(
    service: Service, ended: str
) -> None:
    calls = [each for each in operations() if each[1] not in OPERATORS]
    for (method, path, _), query in itertools.product(
        calls, ({"nonsense": "1"}, {"_": ""}, {"request_id": "x", "limits": "3"})
    ):
        status, problem = await called(service, method, path, ended, query)
        assert (status, problem["code"]) == (422, "VALIDATION_FAILED"), (method, path)
        assert [each["loc"] for each in problem["errors"]] == [[name] for name in query], path
    assert (await service.get(f"/status/{ended}"))[1]["status"] == "FAILED"


async def called(
    service: Service, method: str, path: str, request_id: str, query: dict[str, str]
) -> tuple[int, Any]:
    body = {"data": CSV, "headers": {"Content-Type": "text/csv"}} if path == "/api/upload" else {}
    async with service.session.request(
        method, f"{service.url}{path.replace('{id}', request_id)}", params=query, **body
    ) as response:
        return response.status, await response.json(content_type=None)


async def test_every_field_of_the_form_has_one_name(service: Service) -> None:
    upload = DOCUMENT["paths"]["/api/upload"]["post"]["requestBody"]["content"]
    form = resolved(upload["multipart/form-data"]["schema"])["properties"]
    for name, spelt in [(n, s) for n in form for s in spellings(n)]:
        data = aiohttp.FormData()
        data.add_field("file", CSV, filename="a.csv")
        data.add_field(spelt, "x")
        status, problem = await service.post("/api/upload", data=data)
        assert (status, problem["errors"][0]["loc"]) == (422, [spelt])
        assert name in problem["errors"][0]["msg"]


def product(**more: Any) -> Json:
    return {"serialNumber": 1, "productName": "A", "inputUrls": ["https://example.com/a"], **more}


async def test_snake_case_is_not_taken_and_then_lost(service: Service) -> None:
    lost = {"serial_number": "1", "product_name": "A", "input_urls": ["https://example.com/a"]}
    status, problem = await service.post("/api/upload", json={"products": [lost]})
    assert status == 422
    assert {
        each["loc"][-1]: each["msg"] for each in problem["errors"] if each["loc"][-1] in lost
    } == {
        "serial_number": "is not known; did you mean serialNumber?",
        "product_name": "is not known; did you mean productName?",
        "input_urls": "is not known; did you mean inputUrls?",
    }


OTHER_SHAPES: list[Any] = [
    {"products": [product(input_urls=["https://example.com/b"])]},
    {"products": [product()], "webhook_url": "https://example.com/"},
    {"products": [product()], "webhook_url": None},
    {"products": [product(color=None)]},
    {"products": [product()], "options": {"Format": "webp"}},
    {"products": [product()], "options": {"options": {"format": "webp"}}},
    {"products": [product()], "webhook": {"URL": "https://example.com/"}},
    {"products": [product()], "data": {}},
    {"products": [product()], "": 1},
    {"products": [product()], "__proto__": {"x": 1}},
    {"body": {"products": [product()]}},
    {"products": {"0": product()}},
    {"products": [[product()]]},
    [product()],
    product(),
]


async def test_other_shapes_that_clients_send_are_refused(service: Service) -> None:
    for body in OTHER_SHAPES:
        status, problem = await service.post("/api/upload", json=body)
        assert (status, problem["code"]) == (422, "VALIDATION_FAILED"), body
        assert problem["errors"]


ONE = json.dumps(product())
TWICE = [
    (f'{{"products":[{ONE}],"products":[{ONE}]}}', ["products"]),
    (f'{{"products":[{{"inputUrls":["https://example.com/b"],{ONE[1:]}]}}', ["inputUrls"]),
    (f'{{"products":[{ONE}],"options":{{"format":"webp","format":"png"}}}}', ["format"]),
    (rf'{{"products":[{ONE}],"options":{{"format":"webp","form\u0061t":"png"}}}}', ["format"]),
    (f'{{"products":[{ONE}],"webhook":{{"url":"https://a.bc/","url":"https://d.ef/"}}}}', ["url"]),
    (f'{{"products":[{ONE}],"x":{{"y":[{{"z":1,"z":1}}]}}}}', ["z"]),
]


async def test_a_name_that_stands_twice_is_refused(service: Service) -> None:
    """Readers differ in which of the two they take; so one was looked at, and another used."""
    for body, loc in TWICE:
        status, problem = await service.post("/api/upload", data=body.encode(), headers=JSON)
        assert (status, problem["code"]) == (422, "VALIDATION_FAILED"), body
        [error] = problem["errors"]
        assert error["loc"] == loc
        assert "twice" in error["msg"]


async def test_so_it_is_in_other_bodies_and_in_fields_of_forms(
    service: Service, ended: str
) -> None:
    for path, text in (
        (f"/api/requests/{ended}/retry", '{"codes":["FETCH_STATUS"],"codes":["DNS_FAILED"]}'),
        ("/api/webhooks/test", '{"url":"https://a.bc/","url":"https://d.ef/"}'),
    ):
        status, problem = await service.post(path, data=text.encode(), headers=JSON)
        assert (status, problem["code"]) == (422, "VALIDATION_FAILED"), problem
    form = aiohttp.FormData()
    form.add_field("file", CSV, filename="a.csv")
    form.add_field("options", '{"quality":1,"quality":2}')
    status, problem = await service.post("/api/upload", data=form)
    assert (status, problem["errors"][0]["loc"]) == (422, ["options", "quality"])


NOTHING_SAID: list[Json] = [
    {"options": None},
    {"options": {}},
    {"webhookUrl": None},
    {"webhook": None},
    {"expiresInDays": None},
    {"options": {"format": None, "quality": None}},
    {"webhookUrl": None, "webhook": None, "options": None, "expiresInDays": None},
]


async def test_null_is_as_if_it_were_left_out(service: Service) -> None:
    for more in NOTHING_SAID:
        body = {"products": [product()], **more}
        _, tried = await service.post("/api/upload?validate=true", json=body)
        assert tried["problems"] == [], more


async def test_null_within_a_webhook_and_a_retry_too(service: Service, ended: str) -> None:
    webhook = {"url": "https://a.bc/", "secret": None, "headers": None, "events": None}
    body = {"products": [product()], "webhook": webhook}
    _, tried = await service.post("/api/upload?validate=true", json=body)
    assert tried["problems"] == []
    status, _ = await service.post(
        f"/api/requests/{ended}/retry", json={"codes": None, "products": None}
    )
    assert status == 202
    await service.finished(ended)


OTHER_KINDS: list[tuple[Json, list[Any]]] = [
    ({"webhookUrl": ""}, ["webhookUrl"]),
    ({"webhookUrl": []}, ["webhookUrl"]),
    ({"options": ""}, ["options"]),
    ({"options": []}, ["options"]),
    ({"options": "{}"}, ["options"]),
    ({"options": {"quality": "80"}}, ["options", "quality"]),
    ({"options": {"quality": 80.5}}, ["options", "quality"]),
    ({"options": {"quality": True}}, ["options", "quality"]),
    ({"expiresInDays": "30"}, ["expiresInDays"]),
    ({"expiresInDays": True}, ["expiresInDays"]),
    ({"webhook": "https://example.com/"}, ["webhook"]),
    ({"webhook": {}}, ["webhook", "url"]),
    ({"webhook": {"url": "https://a.bc/", "events": []}}, ["webhook", "events"]),
    ({"webhook": {"url": "https://a.bc/", "events": "request.failed"}}, ["webhook", "events"]),
    ({"webhook": {"url": None}}, ["webhook", "url"]),
    ({"products": None}, ["products"]),
    ({"products": [product(inputUrls=None)]}, ["products", 0, "inputUrls"]),
    ({"products": [product(inputUrls="https://a.bc/")]}, ["products", 0, "inputUrls"]),
    ({"products": [product(inputUrls=[["https://a.bc/"]])]}, ["products", 0, "inputUrls", 0]),
    ({"products": [product(inputUrls=[None])]}, ["products", 0, "inputUrls", 0]),
    ({"products": [product(productName=7)]}, ["products", 0, "productName"]),
    ({"products": [product(), None]}, ["products", 1]),
]


async def test_what_is_said_in_another_kind_is_refused(service: Service) -> None:
    for more, loc in OTHER_KINDS:
        status, problem = await service.post("/api/upload", json={"products": [product()], **more})
        assert (status, [each["loc"] for each in problem["errors"]]) == (422, [loc]), problem
        assert "instance of" not in problem["detail"]  # a class of ours


NO_JSON = [
    r'{"products":[{"serialNumber":"\ud800"}]}',
    r'{"\udfff":1}',
    '{"products":' + "[" * 5000,
    '{"a":' * 5000,
    "[" * 900 + "]" * 900,
    '{"a":NaN}',
    '{"a":1,}',
    "{'products':[]}",
    '{"a":1}{"b":2}',
    '"products"\x00',
]


async def test_what_is_no_json_is_said_to_be_none(service: Service) -> None:
    for path, text in itertools.product(("/api/upload", "/api/webhooks/test"), NO_JSON):
        async with service.session.post(
            f"{service.url}{path}", data=text.encode(), headers=JSON
        ) as response:
            problem = await response.json()
        assert (response.status, problem["code"]) in {
            (400, "INVALID_JSON"),
            (422, "VALIDATION_FAILED"),
        }
        assert problem["errors"]
