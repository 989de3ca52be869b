"""`POST /` and the health endpoints: the answer's form, the stream, Idempotency-Keys."""

import asyncio
import re
import uuid
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from plugins_svc.sdk.output import PluginOutput
from serve_app.api.demo import ChatAnswer
from serve_app.groups import SILENT, GroupState
from serve_app.http.app import create_http_app
from serve_app.http.health import LIMIT_S, Check
from tests.support.chat_fakes import think_of
from tests.support.site import Site, events_of


@pytest.fixture
def key() -> dict[str, str]:
    """A header that no other test of this store has sent."""
    return {"Idempotency-Key": str(uuid.uuid4())}


async def test_the_answer_has_the_form_of_the_demo(site: Site) -> None:
    response = await site.post()
    assert response.status_code == 200
    answer = response.json()
    assert list(answer) == ["response", "history", "status", "time", "uid"]
    ChatAnswer.model_validate_json(response.text, extra="forbid", strict=True)
    assert answer["response"] == "\n<|MOSS|>: turn 1"
    assert answer["history"] == [["你好", "\n<|MOSS|>: turn 1"]]
    assert answer["status"] == 200
    time = datetime.strptime(answer["time"], "%Y-%m-%d %H:%M:%S")
    assert abs(datetime.now() - time) < timedelta(minutes=1)
    assert re.fullmatch("[0-9a-f]{32}", answer["uid"])
    again = (await site.post(prompt="再说", uid=answer["uid"])).json()
    assert again["uid"] == answer["uid"]
    assert again["history"] == [*answer["history"], ["再说", "\n<|MOSS|>: turn 2"]]


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_the_content_type_does_not_matter(site: Site, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    response = await site.client.post("/", content=b'{"prompt": "hi"}', headers=headers)
    assert response.status_code == 200


async def test_the_sampling_defaults_are_those_of_the_demo(site: Site) -> None:
    await site.post()
    params = site.model.params[0]
    assert (params.temperature, params.top_p) == (0.7, 0.8)
    assert (params.top_k, params.repetition_penalty) == (40, 1.02)
    await site.post(temperature=0, top_p=1, max_length=700, max_time=30, model="moss-nano")
    params = site.model.params[-1]
    assert (params.temperature, params.top_p) == (0, 1)
    assert params.max_tokens + len(site.model.prompt_ids[-1]) == 700


@pytest.mark.parametrize("uid", [None, "", "unknown", "f" * 32])
async def test_an_unknown_uid_gets_a_new_one(site: Site, uid: str | None) -> None:
    answer = (await site.post(uid=uid)).json()
    assert answer["uid"] != uid and len(answer["history"]) == 1


async def test_a_request_can_choose_its_plugins(site: Site) -> None:
    site.model.think = think_of('Calculate("1+1")')
    site.plugins.answers["1+1"] = PluginOutput(True, ("2",))
    await site.post()
    assert "=> '2'" in site.model.prompts[1]
    await site.post(plugins=[])
    assert "- Calculator: disabled." in site.model.prompts[2] and len(site.plugins.calls) == 1
    assert (await site.post(plugins=["web_search"])).status_code == 400


async def test_a_stream_ends_with_the_full_answer(site: Site) -> None:
    *deltas, answer = events_of(await site.post(stream=True))
    assert "".join(delta["delta"] for delta in deltas) == "turn 1"
    assert len(deltas) > 1 and all(list(delta) == ["delta"] for delta in deltas)
    assert answer["response"] == "\n<|MOSS|>: turn 1"
    assert list(answer) == ["response", "history", "status", "time", "uid"]
    again = (await site.post(uid=answer["uid"])).json()
    assert len(again["history"]) == 2


async def test_the_stream_is_committed_before_its_end(site: Site) -> None:
    """A client that has read the terminal event can continue the chat at once."""
    uid = None
    for number in range(1, 6):
        *_, answer = events_of(await site.post(stream=True, uid=uid))
        uid = answer["uid"]
        assert answer["response"].endswith(f"turn {number}")


async def test_a_key_is_replayed_and_refused_for_another_body(
    site: Site, key: dict[str, str]
) -> None:
    async def post(**body: object) -> httpx.Response:
        return await site.client.post("/", json={"prompt": "一", **body}, headers=key)

    first = await post()
    replay = await post()
    for answer in (first.json(), replay.json()):
        assert answer["response"] == "\n<|MOSS|>: turn 1"
        assert answer["uid"] == first.json()["uid"] and len(answer["history"]) == 1
    mismatch = await post(temperature=0.1)
    assert mismatch.status_code == 422
    assert mismatch.json()["error"]["code"] == "idempotency_mismatch"
    assert len(site.model.prompts) == 2


@pytest.mark.parametrize("knows_uid", [False, True])
@pytest.mark.parametrize("streams_first", [False, True])
async def test_a_key_is_replayed_however_it_is_delivered(
    site: Site, key: dict[str, str], streams_first: bool, knows_uid: bool
) -> None:
    """A client whose answer was lost may ask otherwise: in one piece, or with the uid it saw."""

    async def post(**body: object) -> dict[str, Any]:
        response = await site.client.post("/", json={"prompt": "一", **body}, headers=key)
        assert response.status_code == 200, response.text
        return events_of(response)[-1] if body["stream"] else response.json()

    first = await post(stream=streams_first)
    uid = first["uid"] if knows_uid else None
    again = await post(stream=not streams_first, uid=uid, max_time=60)
    assert {**again, "time": first["time"]} == first
    assert len(site.model.prompts) == 2, "it was not generated again"


async def test_a_key_is_that_of_one_chat(site: Site, key: dict[str, str]) -> None:
    """The same key and question under another chat's uid is that chat's own turn."""
    other = (await site.post(prompt="other")).json()
    body = {"prompt": "一"}
    first = (await site.client.post("/", json=body, headers=key)).json()
    there = await site.client.post("/", json={**body, "uid": other["uid"]}, headers=key)
    assert there.json()["uid"] == other["uid"]
    assert there.json()["response"] == "\n<|MOSS|>: turn 2"
    assert [user for user, _ in there.json()["history"]] == ["other", "一"]
    again = (await site.client.post("/", json=body, headers=key)).json()
    assert (again["uid"], again["history"]) == (first["uid"], first["history"])


async def test_a_key_that_was_sent_with_a_uid_nobody_has_is_replayed(
    site: Site, key: dict[str, str]
) -> None:
    """As after the chat has expired: both requests start the chat of the key."""
    body = {"prompt": "一", "uid": "f" * 32}
    first = (await site.client.post("/", json=body, headers=key)).json()
    for uid in (body["uid"], first["uid"], None):
        again = await site.client.post("/", json={**body, "uid": uid}, headers=key)
        assert (again.json()["uid"], again.json()["history"]) == (first["uid"], first["history"])


async def test_health(site: Site) -> None:
    response = await site.client.get("/health")
    assert response.status_code == 200
    group = {"healthy": True, "state": "serving", "replica": "one", "ranks": 2, "phase": None}
    assert response.json() == {"status": "ok", "groups": [group]}
    assert (await site.client.get("/readyz")).status_code == 200
    site.probe.healthy = site.probe.ready = False
    for path in ("/health", "/readyz"):
        assert (await site.client.get(path)).status_code == 503
    site.probe.healthy = RuntimeError("the handle is gone")
    response = await site.client.get("/health")
    assert response.status_code == 503
    assert response.json() == {"status": "unavailable", "groups": []}
    assert (await site.client.get("/livez")).status_code == 200
    version = (await site.client.get("/version")).json()
    assert version["model"] == "moss-nano" and re.match(r"\d+\.\d+", version["version"])


async def test_health_is_good_while_some_group_can_serve(site: Site) -> None:
    async def groups() -> tuple[GroupState, ...]:
        return GroupState("serving", "one", 2), GroupState("failed", "two", 2), SILENT

    site.probe.groups = groups  # type: ignore[method-assign]
    response = await site.client.get("/health")
    assert response.status_code == 200
    groups_told = response.json()["groups"]
    assert [group["healthy"] for group in groups_told] == [True, False, False]
    assert [group["state"] for group in groups_told] == ["serving", "failed", "silent"]
    assert [group["replica"] for group in groups_told] == ["one", "two", None]


async def test_a_server_is_ready_if_everything_is(site: Site) -> None:
    """Its model, its store and whatever else has to be true."""
    is_open, never = True, asyncio.Event()

    async def check() -> bool:
        return is_open

    async def hang() -> bool:
        return await never.wait()

    async def status(*readiness: Check) -> int:
        service = replace(site.service, readiness=readiness)
        transport = httpx.ASGITransport(create_http_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.get("/health")).status_code == 200
            return (await client.get("/readyz")).status_code

    assert await status(check, check) == 200
    is_open = False
    assert await status(check) == 503
    async with asyncio.timeout(LIMIT_S + 10):
        assert await status(hang) == 503


async def test_dropped_turns_are_reported(site: Site) -> None:
    uid = None
    for _ in range(9):
        answer = (await site.post(prompt="长" * 150, uid=uid)).json()
        uid = answer["uid"]
    assert answer["dropped_turns"] > 0 and len(answer["history"]) == 9


async def test_where_nothing_is_required_nothing_has_to_be_sent(site: Site) -> None:
    made = await site.client.post("/v1/sessions")
    assert made.status_code == 200, made.text
    turns = f"/v1/sessions/{made.json()['id']}/turns"
    assert (await site.client.post(turns)).status_code == 400, "the control: it needs a text"
    turn = (await site.client.post(turns, json={"user": "hi"})).json()["turn"]["id"]
    for verb in ("regenerate", "cancel"):
        answer = await site.client.post(f"{turns}/{turn}/{verb}")
        assert answer.status_code == 200, answer.text
