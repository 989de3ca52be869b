"""`/v1/sessions`: chats as their owner lists, reads, changes and deletes them."""

from collections.abc import AsyncIterator

import httpx
import pytest

from serve_app.access.principal import Principal
from serve_app.sessions.redis import RedisSessionStore
from serve_app.sessions.session import new_token
from tests.serve_app.http.clients import assert_error, client_of
from tests.serve_app.sessions.turns import append
from tests.support.fakes.gates import FakeGate
from tests.support.site import Site

UNKNOWN = "f" * 32
# Names that are new in each test, since the store is not.
ANN, BOB = "key-of-ann", "key-of-bob"


@pytest.fixture
def owners() -> dict[str, Principal]:
    names = {key: f"{key} {new_token()}" for key in (ANN, BOB)}
    return {key: Principal(name, key) for key, name in names.items()} | {
        "demo": Principal("demo", is_listed=False)
    }


@pytest.fixture
async def ann(site: Site, owners: dict[str, Principal]) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(site, gate=FakeGate(owners)) as client:
        client.headers["apikey"] = ANN
        yield client


@pytest.fixture
async def bob(site: Site, owners: dict[str, Principal]) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(site, gate=FakeGate(owners)) as client:
        client.headers["apikey"] = BOB
        yield client


async def created(client: httpx.AsyncClient, **body: object) -> str:
    response = await client.post("/v1/sessions", json=body)
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


async def test_a_chat_is_made_read_changed_and_deleted(ann: httpx.AsyncClient) -> None:
    body = {"title": "算术", "plugins": ["calculator"], "defaults": {"top_p": 0.5}}
    response = await ann.post("/v1/sessions", json=body)
    made = response.json()
    assert body.items() <= made.items()
    assert (made["object"], made["turns"], made["active_turn"]) == ("session", [], None)
    url = f"/v1/sessions/{made['id']}"
    assert (await ann.get(url)).json() == made
    patched = await ann.patch(url, json={"title": "", "plugins": None, "defaults": {"top_k": 2}})
    changes = {"title": "", "plugins": None, "defaults": {"top_k": 2}}
    assert patched.json() == {**made, **changes} == (await ann.get(url)).json()
    assert (await ann.patch(url, json={})).json() == patched.json()
    bare = await ann.patch(url, json={"defaults": None})
    assert bare.json() == {**patched.json(), "defaults": {}} == (await ann.get(url)).json()
    deleted = {"id": made["id"], "object": "session.deleted", "deleted": True}
    assert (await ann.delete(url)).json() == deleted
    assert_error(await ann.get(url), 404, "session_not_found")
    assert_error(await ann.delete(url), 404, "session_not_found")


async def test_turns_are_the_active_path_and_all_of_them_the_tree(
    ann: httpx.AsyncClient, store: RedisSessionStore, owners: dict[str, Principal]
) -> None:
    uid, owner = await created(ann), owners[ANN].owner
    first = await append(store, uid, owner=owner)
    second = await append(store, uid, first.id, owner, "bad")
    sibling = await append(store, uid, first.id, owner, "good")
    url = f"/v1/sessions/{uid}"
    read = (await ann.get(url)).json()
    assert [turn["id"] for turn in read["turns"]] == [first.id, sibling.id]
    assert [turn["parent"] for turn in read["turns"]] == [None, first.id]
    assert (read["tree"], read["active_turn"]) == (None, sibling.id)
    whole = (await ann.get(url, params={"all": 1})).json()
    assert [turn["reply"] for turn in whole["tree"]] == ["ok", "bad", "good"]
    back = (await ann.patch(url, json={"active_turn": second.id})).json()
    assert [turn["id"] for turn in back["turns"]] == [first.id, second.id]
    unknown = await ann.patch(url, json={"active_turn": UNKNOWN, "title": "no"})
    assert_error(unknown, 404, "turn_not_found")
    assert (await ann.get(url)).json()["title"] == ""


async def test_feedback_is_beside_the_turn(
    ann: httpx.AsyncClient, store: RedisSessionStore, owners: dict[str, Principal]
) -> None:
    uid = await created(ann)
    turn = await append(store, uid, owner=owners[ANN].owner)
    url = f"/v1/sessions/{uid}/turns/{turn.id}"
    before = (await ann.get(url)).json()
    assert before["feedback"] is None
    body = {"liked": True, "comment": "好"}
    given = (await ann.put(f"{url}/feedback", json=body)).json()
    assert given["feedback"] == body == (await ann.get(url)).json()["feedback"]
    assert {**given, "feedback": None, "make_up": {}} == before
    await ann.put(f"{url}/feedback", json={})
    assert (await ann.get(url)).json() == before
    for path in (f"turns/{UNKNOWN}/feedback", "turns/x/feedback"):
        missing = await ann.put(f"/v1/sessions/{uid}/{path}", json=body)
        assert_error(missing, 404, "turn_not_found")
    assert_error(await ann.get(f"/v1/sessions/{uid}/turns/x"), 404, "turn_not_found")


async def test_a_list_has_pages_the_newest_chat_first(
    ann: httpx.AsyncClient,
    bob: httpx.AsyncClient,
    store: RedisSessionStore,
    owners: dict[str, Principal],
) -> None:
    uids = [await created(ann, title=f"{number}") for number in range(5)]
    await created(bob)
    await append(store, uids[0], owner=owners[ANN].owner)
    newest = [uids[0], *reversed(uids[1:])]
    first = (await ann.get("/v1/sessions", params={"limit": 2})).json()
    assert [line["id"] for line in first["data"]] == newest[:2]
    assert (first["has_more"], first["first_id"]) == (True, uids[0])
    assert first["data"][0]["num_turns"] == 1 and first["data"][1]["title"] == "4"
    query = {"limit": 3, "after": first["last_id"]}
    last = (await ann.get("/v1/sessions", params=query)).json()
    assert [line["id"] for line in last["data"]] == newest[2:] and not last["has_more"]
    await ann.delete(f"/v1/sessions/{uids[3]}")
    listed = (await ann.get("/v1/sessions")).json()["data"]
    assert [line["id"] for line in listed] == [uid for uid in newest if uid != uids[3]]
    for after in (UNKNOWN, uids[3], (await bob.get("/v1/sessions")).json()["last_id"]):
        page = await ann.get("/v1/sessions", params={"after": after})
        assert_error(page, 404, "session_not_found")


async def test_chats_without_a_key_are_reached_by_uid_and_never_listed(
    ann: httpx.AsyncClient,
) -> None:
    ann.headers["apikey"] = "demo"
    uid = await created(ann)
    listed = (await ann.get("/v1/sessions")).json()
    assert listed == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }
    assert (await ann.get(f"/v1/sessions/{uid}")).status_code == 200


@pytest.mark.parametrize("method", ["get", "patch", "delete", "read_turn", "feedback"])
async def test_a_foreign_chat_is_one_that_is_not_there(
    ann: httpx.AsyncClient,
    bob: httpx.AsyncClient,
    store: RedisSessionStore,
    owners: dict[str, Principal],
    method: str,
) -> None:
    uid = await created(ann)
    turn = await append(store, uid, owner=owners[ANN].owner)

    async def ask(session_id: str) -> httpx.Response:
        url = f"/v1/sessions/{session_id}"
        if method == "patch":
            return await bob.patch(url, json={"title": "mine", "active_turn": turn.id})
        if method == "feedback":
            return await bob.put(f"{url}/turns/{turn.id}/feedback", json={"liked": False})
        if method == "read_turn":
            return await bob.get(f"{url}/turns/{turn.id}")
        return await bob.request(method, url)

    before = (await ann.get(f"/v1/sessions/{uid}")).json()
    foreign = await ask(uid)
    assert_error(foreign, 404, "session_not_found")
    for other in (UNKNOWN, new_token(), uid.upper(), uid[:-1], "{uid}", "长"):
        unknown = await ask(other)
        assert (unknown.status_code, unknown.content) == (404, foreign.content)
    assert (await ann.get(f"/v1/sessions/{uid}")).json() == before


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"title": "x" * 201}, "title"),
        ({"title": 1}, "title"),
        ({"plugins": ["nothing"]}, "plugins"),
        ({"plugins": "calculator"}, "plugins"),
        ({"plugins": ["calculator"] * 101}, "plugins"),
        ({"defaults": {"top_p": 0}}, "defaults.top_p"),
        ({"defaults": {"top_p": "1"}}, "defaults.top_p"),
        ({"defaults": {"top": 1}}, "defaults.top"),
        ({"defaults": {"max_tokens": 2**31}}, "defaults.max_tokens"),
        ({"defaults": []}, "defaults"),
    ],
)
async def test_what_does_not_fit_is_refused(
    ann: httpx.AsyncClient, body: dict[str, object], param: str
) -> None:
    uid = await created(ann)
    for response in (
        await ann.post("/v1/sessions", json=body),
        await ann.patch(f"/v1/sessions/{uid}", json=body),
    ):
        assert_error(response, 400, "invalid_value")
        assert response.json()["error"]["param"] == param


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "101"}, {"limit": "x"}, {"after": "x" * 65}]
)
async def test_a_query_that_does_not_fit_is_refused(
    ann: httpx.AsyncClient, query: dict[str, str]
) -> None:
    response = await ann.get("/v1/sessions", params=query)
    assert_error(response, 400, "invalid_value")
    assert response.json()["error"]["param"] == next(iter(query))
    uid = await created(ann)
    assert_error(await ann.get(f"/v1/sessions/{uid}?all=perhaps"), 400, "invalid_value")


async def test_a_long_comment_is_refused(ann: httpx.AsyncClient) -> None:
    url = f"/v1/sessions/{UNKNOWN}/turns/{UNKNOWN}/feedback"
    assert_error(await ann.put(url, json={"comment": "x" * 4001}), 400, "invalid_value")


async def test_a_chat_has_its_own_settings_where_a_turn_names_none(
    site: Site, ann: httpx.AsyncClient
) -> None:
    defaults = {"temperature": 0.25, "top_p": 0.5, "max_tokens": 3}
    uid = await created(ann, plugins=[], defaults=defaults)
    await ann.post("/", json={"prompt": "hi", "uid": uid, "top_p": 0.9, "plugins": None})
    used = site.model.params[-1]
    assert (used.temperature, used.top_p, used.max_tokens) == (0.25, 0.9, 3)
    await ann.post("/", json={"prompt": "hi", "uid": uid, "max_length": 2000, "plugins": []})
    assert site.model.params[-1].max_tokens > 3
    turns = (await ann.get(f"/v1/sessions/{uid}")).json()["turns"]
    assert [turn["finish_reason"] for turn in turns] == ["length", "stop"]
    whole = (await ann.get(f"/v1/sessions/{uid}/turns/{turns[0]['id']}")).json()
    assert whole["make_up"]["plugins"] == [] and whole["seed"] == turns[0]["seed"]
    assert whole["make_up"]["num_tokens"] == 3
