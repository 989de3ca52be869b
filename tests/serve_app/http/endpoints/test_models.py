"""The list of models is what a caller may use, in OpenAI's form."""

from serve_app.access.principal import Principal
from tests.serve_app.http.clients import client_of
from tests.support.fakes.gates import FakeGate
from tests.support.site import Site


async def test_the_models_are_the_served_names(site: Site) -> None:
    client = client_of(site, model_names=("fnlp/moss-moon-003", "gpt-4"), started_s=1234)
    first = {
        "id": "fnlp/moss-moon-003",
        "object": "model",
        "created": 1234,
        "owned_by": "moss",
        "root": "fnlp/moss-moon-003",
        "max_model_len": 4096,
    }
    second = {**first, "id": "gpt-4"}
    answer = await client.get("/v1/models")
    assert answer.json() == {"object": "list", "data": [first, second]}
    assert (await client.get("/v1/models/gpt-4")).json() == second
    for path in ("fnlp/moss-moon-003", "fnlp%2Fmoss-moon-003"):
        assert (await client.get(f"/v1/models/{path}")).json() == first
    unknown = await client.get("/v1/models/other")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


async def test_a_key_shows_its_models_only(site: Site) -> None:
    gate = FakeGate({"k": Principal("a", "1", models=frozenset({"b", "c"}))})
    client = client_of(site, gate=gate, requires_key=True, model_names=("a", "b"))
    headers = {"Authorization": "Bearer k"}
    listed = (await client.get("/v1/models", headers=headers)).json()
    assert [model["id"] for model in listed["data"]] == ["b"]
    assert (await client.get("/v1/models/b", headers=headers)).status_code == 200
    denied = await client.get("/v1/models/a", headers=headers)
    assert (denied.status_code, denied.json()["error"]["type"]) == (403, "permission_error")
    assert (await client.get("/v1/models")).status_code == 401
