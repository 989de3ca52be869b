"""`/openapi.json` says what the table says, and the page at `/docs` needs nothing but itself."""

import hashlib
import re
from base64 import b64decode
from typing import Any

import pytest
import schemathesis
from pydantic import BaseModel

from serve_app.http.app import ENDPOINTS
from serve_app.http.endpoint import Call, Endpoint
from serve_app.http.openapi import describe
from tests.serve_app.http.clients import client_of
from tests.support.fakes.gates import FakeGate
from tests.support.site import Site


async def never(call: Call) -> Any:
    raise AssertionError


def references(value: object) -> set[str]:
    """All targets of `$ref` in a description."""
    if isinstance(value, list):
        return {target for each in value for target in references(each)}
    if not isinstance(value, dict):
        return set()
    own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
    return own | references([*value.values()])


async def test_the_description_lists_every_endpoint(site: Site) -> None:
    response = await site.client.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    api = response.json()
    assert api["openapi"] == "3.1.0" and api["info"]["title"] == "MOSS"
    found = {(method.upper(), path) for path, ops in api["paths"].items() for method in ops}
    assert found == {(e.method, re.sub(r":\w+}", "}", e.path)) for e in ENDPOINTS}
    names = [op["operationId"] for ops in api["paths"].values() for op in ops.values()]
    assert len(names) == len(set(names)) and all(re.fullmatch(r"\w+", name) for name in names)


@pytest.mark.parametrize("requires_key", [False, True])
def test_every_schema_is_there_and_is_one(requires_key: bool) -> None:
    api = describe(ENDPOINTS, requires_key)
    schemas = api["components"]["schemas"]
    assert references(api) <= {f"#/components/schemas/{name}" for name in schemas}
    assert "ErrorBody" in schemas and "ChatRequest" in " ".join(schemas)
    schemathesis.openapi.from_dict(api).validate()  # against OpenAPI's own schema
    api["paths"]["/livez"]["get"]["responses"] = []
    with pytest.raises(Exception, match="responses"):
        schemathesis.openapi.from_dict(api).validate()


def test_a_body_without_a_required_field_is_no_required_body() -> None:
    paths = describe(ENDPOINTS, requires_key=False)["paths"]
    assert not paths["/v1/sessions"]["post"]["requestBody"]["required"]
    assert paths["/v1/sessions/{uid}/turns"]["post"]["requestBody"]["required"]


def prefilled(api: dict[str, Any], schema: dict[str, Any]) -> Any:
    """The body that the page at `/docs` begins with."""
    name = schema.get("$ref", "").rpartition("/")[2]
    whole = api["components"]["schemas"][name] if name else schema
    if "default" in whole and whole["default"] is not None:
        return whole["default"]
    if "examples" in whole:
        return whole["examples"][0]
    if options := whole.get("anyOf"):
        return prefilled(api, options[0])
    if whole.get("type") == "object":
        properties = whole.get("properties", {})
        return {each: prefilled(api, properties[each]) for each in whole.get("required", ())}
    if whole.get("type") == "array":
        return [prefilled(api, whole["items"])]
    return {"string": "Hello", "integer": 1, "number": 1, "boolean": True}[whole["type"]]


async def test_what_the_page_begins_with_can_be_sent(site: Site) -> None:
    api = describe(ENDPOINTS, requires_key=False)
    uid = (await site.post()).json()["uid"]
    turn = (await site.client.get(f"/v1/sessions/{uid}")).json()["active_turn"]
    for endpoint in ENDPOINTS:
        if endpoint.body is None:
            continue
        operation = api["paths"][endpoint.path][endpoint.method.lower()]
        body = prefilled(api, operation["requestBody"]["content"]["application/json"]["schema"])
        path = endpoint.path.format(uid=uid, id=turn)
        site.client.cookies.clear()  # a login makes another owner of the caller
        response = await site.client.request(endpoint.method, path, json=body)
        assert response.status_code == 200, (path, body, response.text)


def test_an_operation_says_all_that_its_endpoint_says() -> None:
    class Question(BaseModel):
        text: str

    class Answer(BaseModel):
        number: int = 0

    endpoint = Endpoint(
        "POST",
        "/v1/things/{name:path}/parts",
        never,
        "Ask",
        body=Question,
        answer=Answer,
        errors=(409,),
        is_stream=True,
        query={"after": int | None},
        headers={"X-Shade": str},
        statuses=(200, 204),
    )
    public = Endpoint("GET", "/open", never, "Look", access="public", media_type="text/html")
    api = describe([endpoint, public], requires_key=True)
    asked = api["paths"]["/v1/things/{name}/parts"]["post"]
    assert asked["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Question"
    }
    assert [(p["in"], p["name"]) for p in asked["parameters"]] == [
        ("path", "name"),
        ("query", "after"),
        ("header", "X-Shade"),
    ]
    content = asked["responses"]["200"]["content"]
    assert set(content) == {"application/json", "text/event-stream"}
    assert list(api["components"]["schemas"]["Answer"]["properties"]) == ["number"]
    assert "content" not in asked["responses"]["204"]
    assert {"400", "401", "403", "408", "409", "413", "431", "500"} <= set(asked["responses"])
    assert "Retry-After" in asked["responses"]["409"]["headers"]
    assert {name for each in asked["security"] for name in each} == {"bearer", "apikey", "page"}
    looked = api["paths"]["/open"]["get"]
    assert set(looked["responses"]["200"]["content"]) == {"text/html"}
    assert "security" not in looked and "401" not in looked["responses"]


def test_two_models_of_one_name_are_told_apart() -> None:
    def model_of(kind: type) -> type[BaseModel]:
        class Body(BaseModel):
            field: kind  # type: ignore[valid-type]

        Body.__module__ = f"of_{kind.__name__}"
        return Body

    table = [
        Endpoint("POST", f"/{kind.__name__}", never, "", body=model_of(kind)) for kind in (int, str)
    ]
    schemas = describe(table, False)["components"]["schemas"]
    fields = [schema["properties"].get("field", {}) for schema in schemas.values()]
    assert sorted(field["type"] for field in fields if field) == ["integer", "string"]


async def test_what_describes_the_api_needs_no_key(site: Site) -> None:
    async with client_of(site, gate=FakeGate(), requires_key=True) as client:
        api = (await client.get("/openapi.json")).json()
        assert set(api["components"]["securitySchemes"]) == {"bearer", "apikey", "page"}
        assert (await client.get("/docs")).status_code == 200
    assert not (await site.client.get("/openapi.json")).json()["components"]["securitySchemes"]


async def test_the_page_runs_its_own_script_and_loads_nothing(site: Site) -> None:
    response = await site.client.get("/docs")
    assert response.headers["content-type"].startswith("text/html")
    policy = dict(
        part.strip().split(" ", 1)
        for part in response.headers["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == "'none'" and policy["connect-src"] == "'self'"
    for tag in ("script", "style"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", response.text, re.DOTALL)
        source = policy[f"{tag}-src"].removeprefix("'sha256-").removesuffix("'")
        assert b64decode(source) == hashlib.sha256(text.encode()).digest()
    assert not re.search(r"(src|href)=\"?(https?:)?//|@import|innerHTML|eval\(", response.text)
    assert "on" not in {name[:2] for name in re.findall(r"<\w+[^>]*? (\w+)=", response.text)}
