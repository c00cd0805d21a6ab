"""The OpenAPI 3.1 document, made from the table of routes and the schemas it names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

import imgsvc
from imgsvc.domain.model import Scope
from imgsvc.http import examples
from imgsvc.http.route import Route
from imgsvc.http.schemas.problems import Problem

_SCHEME = "bearer"
_SECURITY = {
    _SCHEME: {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key (isk_...) or a token of the configured issuer, as [auth] mode "
        "says. Each call names the scope it needs: upload, read or admin.",
    }
}
_REF = "#/components/schemas/{model}"


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """The document for a table of routes."""
    routes = tuple(routes)
    bodies: set[type[BaseModel]] = {
        m for r in routes for m in (r.query, r.headers, *r.body.values()) if m
    }
    answers: set[type[BaseModel]] = {Problem}
    answers |= {m for r in routes for m in r.answers.values() if not isinstance(m, str)}
    schemas, definitions = models_json_schema(
        [
            *((m, "validation") for m in sorted(bodies, key=_name)),
            *((m, "serialization") for m in sorted(answers, key=_name)),
        ],
        ref_template=_REF,
    )
    by_model = {model: schema for (model, _), schema in schemas.items()}
    components = definitions["$defs"]
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(
            route, by_model, components
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "imgsvc",
            "version": imgsvc.__version__,
            "description": "Post products with image URLs; get them smaller, in your bucket. "
            "Names are those of this document, in bodies and in queries: any other is refused. In "
            "JSON, null is as if an optional field were left out.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SECURITY},
    }


def _name(model: type[BaseModel]) -> str:
    return model.__name__


def _operation(
    route: Route, by_model: Mapping[Any, Any], components: Mapping[str, Any]
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "responses": _responses(route, by_model),
    }
    if parameters := _parameters(route, by_model, components):
        operation["parameters"] = parameters
    if route.body:
        operation["requestBody"] = {
            "required": not route.body_may_be_missing,
            "content": {
                media: {
                    "schema": by_model[model] if model else {"type": "string"},
                    "example": route.examples[media],
                }
                for media, model in route.body.items()
            },
        }
    if isinstance(route.scope, Scope):
        # {}: or none, because the operator may choose not to authenticate callers.
        operation["security"] = [{_SCHEME: [route.scope]}, {}]
    return operation


def _parameters(
    route: Route, by_model: Mapping[Any, Any], components: Mapping[str, Any]
) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string"},
            "example": examples.ID,
        }
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    for place, model in (("query", route.query), ("header", route.headers)):
        if model:
            # Browsers send the empty fields of a form, too.
            may_be_empty = {"allowEmptyValue": True} if place == "query" else {}
            schema = components[by_model[model]["$ref"].rpartition("/")[2]]
            parameters += [
                {"name": name, "in": place, "required": False, "schema": value} | may_be_empty
                for name, value in schema["properties"].items()
            ]
    return parameters


def _responses(route: Route, by_model: Mapping[Any, Any]) -> dict[str, Any]:
    responses = {}
    for status, model in route.answers.items():
        media = model if isinstance(model, str) else "application/json"
        content: dict[str, Any] = {
            "schema": {"type": "object" if media.endswith("json") else "string"}
            if isinstance(model, str)
            else by_model[model]
        }
        if (status, model) in examples.ANSWERS:
            content["example"] = examples.ANSWERS[status, model]
        responses[str(status)] = _response(status, media, content)
    refusals = {422, *route.refusals}  # every call refuses an unknown query
    if isinstance(route.scope, Scope):
        refusals |= {401, 403}
    for status in sorted(refusals):
        content = {"schema": by_model[Problem]}
        responses[str(status)] = _response(status, "application/problem+json", content)
    return responses


def _response(status: int, media: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": HTTPStatus(status).phrase, "content": {media: content}}
