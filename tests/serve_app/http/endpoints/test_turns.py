"""`/v1/sessions/{uid}/turns` over fakes and a real store."""

import asyncio

import httpx
import pytest
from redis.asyncio import Redis

from moss_tp.errors import QueueFullError
from serve_app.http.app import create_http_app
from tests.serve_app.http.endpoints.sites.turn_site import (
    KEY,
    held_turn,
    new_session,
    parsed,
    tail_of,
)
from tests.support.http_server import serving
from tests.support.site import Site
from tests.support.waiting import until


async def test_a_turn_is_answered_when_it_is_stored(site: Site) -> None:
    turns = await new_session(site)
    response = await site.client.post(turns, json={"user": "hi"})
    assert response.status_code == 200
    body = response.json()
    assert body["finish_reason"] == "stop" and body["turn"]["reply"] == "turn 1"
    stored = await site.client.get(f"{turns}/{body['turn']['id']}")
    assert stored.json() | {"make_up": None} == body["turn"]
    again = await site.client.post(turns, json={"user": "and"})
    assert again.json()["turn"]["parent"] == body["turn"]["id"]


@pytest.mark.parametrize("by", ["body", "header"])
async def test_a_turn_is_streamed(site: Site, by: str) -> None:
    turns = await new_session(site)
    body = {"user": "hi", "stream": by == "body"}
    headers = {"Accept": "text/event-stream"} if by == "header" else {}
    response = await site.client.post(turns, json=body, headers=headers)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = parsed(response.text)
    assert [number for number, _, _ in events] == [str(n) for n in range(len(events))]
    kinds = [kind for _, kind, _ in events]
    assert (kinds[0], kinds[1], kinds[-1]) == ("turn", "thoughts", "done")
    assert "".join(data["text"] for _, kind, data in events if kind == "delta") == "turn 1"
    assert events[-1][2]["turn"]["reply"] == "turn 1"


async def test_an_empty_parent_is_no_new_beginning(site: Site) -> None:
    turns = await new_session(site)
    refused = await site.client.post(turns, json={"user": "hi", "parent": ""})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "parent")


async def test_a_turn_that_runs_is_found_in_its_session(site: Site) -> None:
    async with held_turn(site) as (turns, turn_id):
        chat = turns.removesuffix("/turns")
        running = (await site.client.get(chat)).json()
        assert (running["running_turn"], running["turns"]) == (turn_id, [])
        assert (await site.client.patch(chat, json={})).json()["running_turn"] == turn_id
        early = await site.client.get(f"{turns}/{turn_id}")
        assert early.status_code == 404 and "still runs" in early.json()["error"]["message"]
        unknown = await site.client.get(f"{turns}/{'f' * 32}")
        assert "still runs" not in unknown.json()["error"]["message"]
    ended = (await site.client.get(chat)).json()
    assert (ended["running_turn"], ended["active_turn"]) == (None, turn_id)


async def test_nobody_else_learns_which_turn_runs(site: Site) -> None:
    async with held_turn(site) as (turns, turn_id):
        uid = turns.split("/")[3]
        assert await site.live.running(uid, "demo") == turn_id
        assert await site.live.running(uid, "other") is None
        assert await site.live.running("f" * 32, "demo") is None


async def test_a_reader_comes_back(site: Site) -> None:
    turns = await new_session(site)
    whole = await site.client.post(turns, json={"user": "hi", "stream": True})
    events = parsed(whole.text)
    path = f"{turns}/{events[0][2]['id']}/events"
    for after in range(len(events) - 1):
        response = await site.client.get(path, headers={"Last-Event-ID": str(after)})
        assert parsed(response.text) == events[after + 1 :]
    by_query = await site.client.get(f"{path}?after=0")
    assert parsed(by_query.text) == events[1:]
    end = await site.client.get(path, headers={"Last-Event-ID": str(len(events) - 1)})
    assert (end.status_code, end.content) == (204, b"")


@pytest.mark.parametrize("after", ["x", "-1", "1e3", "٣", "9" * 30])
async def test_what_is_no_number_of_an_event_is_refused(site: Site, after: str) -> None:
    turns = await new_session(site)
    path = f"{turns}/{'0' * 32}/events"
    response = await site.client.get(path, params={"after": after})
    assert response.status_code == 400


async def test_a_stored_turn_is_told_anew(site: Site, store_url: str) -> None:
    turns = await new_session(site)
    turn = (await site.client.post(turns, json={"user": "hi"})).json()["turn"]
    async with Redis.from_url(store_url) as redis:  # the time is over for which events are kept
        await redis.delete(*[key async for key in redis.scan_iter("*:live:*")])
    response = await site.client.get(f"{turns}/{turn['id']}/events")
    events = parsed(response.text)
    assert [kind for _, kind, _ in events] == ["reset", "delta", "done"]
    assert events[1][2] == {"text": "turn 1"} and events[2][2]["turn"] == turn
    end = {"Last-Event-ID": events[-1][0]}
    assert (await site.client.get(f"{turns}/{turn['id']}/events", headers=end)).status_code == 204
    middle = {"Last-Event-ID": events[0][0]}
    rest = await site.client.get(f"{turns}/{turn['id']}/events", headers=middle)
    assert parsed(rest.text) == events[1:]


async def test_a_key_is_one_turn(site: Site) -> None:
    turns = await new_session(site)
    body = {"user": "hi", "stream": True}
    first = await site.client.post(turns, json=body, headers=KEY)
    assert (await site.client.post(turns, json=body, headers=KEY)).text == first.text
    plain = await site.client.post(turns, json={"user": "hi"}, headers=KEY)
    assert plain.status_code == 200, plain.text
    assert plain.json()["turn"]["id"] == parsed(first.text)[0][2]["id"]
    other = await site.client.post(turns, json={"user": "ho"}, headers=KEY)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_mismatch")
    assert len(site.model.requests) == 2


async def test_a_running_turn_excludes_others(site: Site) -> None:
    async with held_turn(site) as (turns, _):
        same = await site.client.post(turns, json={"user": "hi"}, headers=KEY)
        assert (same.status_code, same.json()["error"]["code"]) == (409, "idempotency_in_progress")
        other = await site.client.post(turns, json={"user": "hi"})
        assert (other.status_code, other.json()["error"]["code"]) == (409, "session_busy")
        assert other.headers["Retry-After"] == "1"
        uid = turns.split("/")[3]
        demo = await site.post(uid=uid)
        assert (demo.status_code, demo.json()["error"]["code"]) == (409, "session_busy")


async def test_a_turn_outlives_its_client(site: Site) -> None:
    turns = await new_session(site)
    asking = asyncio.create_task(site.client.post(turns, json={"user": "hi"}))
    while not site.model.requests:
        await asyncio.sleep(0.001)
    asking.cancel()
    turn_id = site.model.requests[0].request_id.split("-")[0]
    events = parsed((await site.client.get(f"{turns}/{turn_id}/events")).text)
    assert events[-1][1] == "done"


async def test_regenerate_and_edit_make_siblings(site: Site) -> None:
    turns = await new_session(site)
    first = (await site.client.post(turns, json={"user": "a"})).json()["turn"]
    second = (await site.client.post(turns, json={"user": "b"})).json()["turn"]
    site.model.reply = lambda prompt: " another<eom>"
    again = await site.client.post(f"{turns}/{second['id']}/regenerate", json={})
    third = again.json()["turn"]
    assert (third["user"], third["reply"], third["parent"]) == ("b", "another", first["id"])
    assert third["seed"] != second["seed"]
    edited = await site.client.post(turns, json={"user": "c", "parent": None})
    fourth = edited.json()["turn"]
    assert fourth["parent"] is None
    session = (await site.client.get(f"{turns.removesuffix('/turns')}?all=true")).json()
    assert [turn["id"] for turn in session["tree"]] == [
        turn["id"] for turn in (first, second, third, fourth)
    ]
    assert [turn["id"] for turn in session["turns"]] == [fourth["id"]]
    assert "<|Human|>: a" not in site.model.prompts[-1]


async def test_a_parent_must_be_there(site: Site) -> None:
    turns = await new_session(site)
    body = {"user": "hi", "parent": "0" * 32}
    response = await site.client.post(turns, json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "turn_not_found")
    missing = await site.client.post(f"{turns}/{'0' * 32}/regenerate", json={})
    assert missing.json() == response.json() | {"error": missing.json()["error"]}
    assert missing.status_code == 404
    assert (await site.client.post(turns, json={"user": "hi"})).status_code == 200, "it is free"


@pytest.mark.parametrize("uid", ["0" * 32, "x", "{}"])
async def test_an_unknown_session_is_not_found(site: Site, uid: str) -> None:
    turns = f"/v1/sessions/{uid}/turns"
    asked = [
        site.client.post(turns, json={"user": "hi"}),
        site.client.get(f"{turns}/{'0' * 32}/events"),
        site.client.post(f"{turns}/{'0' * 32}/regenerate", json={}),
        site.client.post(f"{turns}/{'0' * 32}/cancel", json={}),
    ]
    for response in await asyncio.gather(*asked):
        assert (response.status_code, response.json()["error"]["code"]) == (
            404,
            "session_not_found",
        )


async def test_a_cancelled_turn_leaves_no_trace(site: Site) -> None:
    async with held_turn(site) as (turns, turn_id):
        response = await site.client.post(f"{turns}/{turn_id}/cancel", json={})
        assert response.json() == {"id": turn_id, "state": "cancelled", "turn": None}
        assert (site.model.num_running, site.model.num_aborted) == (0, 1)
        events = parsed((await site.client.get(f"{turns}/{turn_id}/events")).text)
        assert events[-1][1] == "error" and events[-1][2]["error"]["code"] == "turn_cancelled"
        session = (await site.client.get(turns.removesuffix("/turns"))).json()
        assert session["turns"] == []


async def test_a_cancelled_turn_may_keep_what_was_told(site: Site) -> None:
    async with held_turn(site) as (turns, turn_id):
        response = await site.client.post(f"{turns}/{turn_id}/cancel", json={"keep": True})
        turn = response.json()["turn"]
        assert (turn["reply"], turn["finish_reason"]) == ("turn", "cancelled")
        events = parsed((await site.client.get(f"{turns}/{turn_id}/events")).text)
        assert "".join(data["text"] for _, kind, data in events if kind == "delta") == "turn"
        assert events[-1][1] == "done"
    site.model.wait = FAST
    after = await site.client.post(turns, json={"user": "and"})
    assert after.json()["turn"]["parent"] == turn_id
    late = await site.client.post(f"{turns}/{turn_id}/cancel", json={})
    assert late.json()["state"] == "cancelled", "it was"


async def FAST(is_reply: bool, num_tokens: int) -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_turn_that_is_refused_at_once_is_an_error(site: Site, is_stream: bool) -> None:
    async def refuse(is_reply: bool, num_tokens: int) -> None:
        raise QueueFullError("full", 3)

    site.model.wait = refuse
    turns = await new_session(site)
    response = await site.client.post(turns, json={"user": "hi", "stream": is_stream})
    assert (response.status_code, response.headers["Retry-After"]) == (429, "3")
    assert response.json()["error"]["code"] == "queue_full"


async def test_a_session_brings_its_own_parameters(site: Site) -> None:
    turns = await new_session(site, defaults={"temperature": 0.1, "top_k": 7}, plugins=[])
    await site.client.post(turns, json={"user": "hi", "top_k": 9})
    params = site.model.params[-1]
    assert (params.temperature, params.top_k) == (0.1, 9)
    assert "Calculate" not in site.model.prompts[-1]


async def test_a_draining_server_takes_no_turn(site: Site) -> None:
    turns = await new_session(site)
    site.service.drain.begin()
    response = await site.client.post(turns, json={"user": "hi"})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "draining")


async def broken_off(site: Site, path: str) -> str:
    """What comes of a stream until its connection breaks."""
    text = ""
    async with serving(create_http_app(site.service)) as url, httpx.AsyncClient() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            async with client.stream("GET", url + path) as response:
                async for part in response.aiter_text():
                    text += part
    return text


async def test_a_deleted_session_ends_its_turn(site: Site) -> None:
    async with held_turn(site) as (turns, turn_id):
        tail = tail_of(site, turns, turn_id)
        num_readers = tail.num_readers
        reading = asyncio.create_task(broken_off(site, f"{turns}/{turn_id}/events"))
        await until(lambda: tail.num_readers > num_readers)
        assert (await site.client.delete(turns.removesuffix("/turns"))).status_code == 200
        events = parsed(await reading)
        assert events[-1][1] == "error"
        assert events[-1][2]["error"]["code"] == "session_not_found"
        assert site.model.num_running == 0
        gone = await site.client.get(f"{turns}/{turn_id}/events")
        assert gone.status_code == 404


def test_the_client_of_these_tests_reads_numbers() -> None:
    assert parsed('id: 3\nevent: delta\ndata: {"text": "x"}\n\n') == [("3", "delta", {"text": "x"})]
