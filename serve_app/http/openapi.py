"""`/openapi.json`: the description of the API, made of the table of endpoints."""

import importlib.metadata
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from serve_app.access.cookies import COOKIE
from serve_app.api.meta import ErrorBody
from serve_app.api.parsing import needs_body
from serve_app.api.schemas import SchemaBook
from serve_app.http.docs_page import DOCS
from serve_app.http.endpoint import Call, Endpoint
from serve_app.http.request_id import HEADER as REQUEST_ID

EVENTS = "text/event-stream"
_JSON = "application/json"
_PART = re.compile(r"\{(\w+)(?::\w+)?\}")
_ALWAYS = (403, 431, 500)
_WITH_A_BODY = (400, 408, 413)
_EMPTY = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
_RETRIED = (409, 429, 500, 503)
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "apikey": {"type": "apiKey", "in": "header", "name": "apikey"},
    "page": {"type": "apiKey", "in": "cookie", "name": COOKIE},
}
_INFO = {
    "title": "MOSS",
    "description": (
        "MOSS's demo API, its service API, OpenAI's API, and sessions with live turns."
        " Every error has one form, and every response an X-Request-Id."
    ),
}


def with_description(table: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """`table`, with endpoints that describe it: for programs and for people."""

    @cache
    def text(requires_key: bool) -> bytes:
        return json.dumps(describe(whole, requires_key), ensure_ascii=False).encode()

    async def openapi(call: Call) -> Response:
        return Response(text(call.service.requires_key), media_type=_JSON)

    whole = (
        *table,
        Endpoint("GET", "/openapi.json", openapi, "This description", access="public"),
        DOCS,
    )
    return whole


def describe(table: Iterable[Endpoint], requires_key: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a server, whose callers may need a key."""
    book = SchemaBook()
    error = book.schema(ErrorBody, "written")
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in table:
        path = _PART.sub(r"{\1}", endpoint.path)
        operation = _operation(endpoint, requires_key, book, error)
        paths.setdefault(path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {**_INFO, "version": importlib.metadata.version("moss-serve")},
        "paths": paths,
        "components": {
            "schemas": dict(sorted(book.close().items())),
            "securitySchemes": _SCHEMES if requires_key else {},
        },
    }


def _operation(
    endpoint: Endpoint, requires_key: bool, book: SchemaBook, error: Mapping[str, Any]
) -> dict[str, Any]:
    is_locked = requires_key and endpoint.access != "public"
    operation: dict[str, Any] = {
        "operationId": f"{endpoint.method}_{endpoint.path}".lower().translate(_AS_NAME),
        "summary": endpoint.summary,
        "parameters": [*_parameters(endpoint, book)],
        "responses": {
            **{str(status): _success(status, endpoint, book) for status in endpoint.statuses},
            **_failures(endpoint, is_locked, book, error),
        },
    }
    if endpoint.body is not None:
        content = {_JSON: {"schema": book.schema(endpoint.body, "read")}}
        operation["requestBody"] = {
            "required": needs_body(endpoint.body),
            "content": content,
        }
    if is_locked:
        operation["security"] = [{name: []} for name in _SCHEMES]
    return operation


_AS_NAME = str.maketrans({"/": "_", "{": "", "}": "", ":": "_", ".": "_"})


def _parameters(endpoint: Endpoint, book: SchemaBook) -> Iterable[dict[str, Any]]:
    for name in _PART.findall(endpoint.path):
        schema = {"type": "string", "minLength": 1}
        yield {"in": "path", "name": name, "required": True, "schema": schema}
    for place, types in (("query", endpoint.query), ("header", endpoint.headers)):
        for name, kind in types.items():
            yield {"in": place, "name": name, "schema": book.schema(kind, "read")}


def _success(status: int, endpoint: Endpoint, book: SchemaBook) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if endpoint.media_type and status not in _EMPTY:
        kind = endpoint.answer
        schema = {} if kind is None else book.schema(kind, "written")
        content[endpoint.media_type] = {"schema": schema}
        if endpoint.is_stream:
            content[EVENTS] = {}  # OpenAPI 3.1 has no schema of single events
    return _response(status, content)


def _failures(
    endpoint: Endpoint, is_locked: bool, book: SchemaBook, error: Mapping[str, Any]
) -> dict[str, Any]:
    statuses = {*endpoint.errors, *_ALWAYS}
    statuses |= {401, 429} if is_locked else set()
    statuses |= {503} if endpoint.access != "public" else set()  # a key or a cookie is looked up
    statuses |= {*_WITH_A_BODY} if endpoint.body is not None else set()
    schema: Any = error
    if endpoint.error is not None:
        schema = {"anyOf": [book.schema(endpoint.error, "written"), error]}
    content = {_JSON: {"schema": schema}}
    return {str(status): _response(status, content) for status in sorted(statuses)}


def _response(status: int, content: Mapping[str, Any]) -> dict[str, Any]:
    headers: dict[str, Any] = {REQUEST_ID: {"required": True, "schema": {"type": "string"}}}
    if status in _RETRIED:
        headers["Retry-After"] = {"schema": {"type": "integer", "minimum": 1}}
    return {
        "description": HTTPStatus(status).phrase,
        "headers": headers,
        **({"content": content} if content else {}),
    }
