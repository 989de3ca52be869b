"""`?render=html`: a turn's reply as blocks of HTML beside its events, and with its session."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from tests.serve_app.http.clients import assert_error, client_of
from tests.serve_app.http.endpoints.sites.turn_site import KEY, held_turn, new_session, parsed
from tests.support.fakes.renderers import FakeRenderer, block
from tests.support.site import Site
from tests.support.waiting import until

HTML = {"render": "html"}
STREAM = {"user": "hi", "stream": True}
LINES = ["one", "two", "three"]
BLOCKS = [*map(block, LINES)]

Events = list[tuple[str, str, Any]]


@pytest.fixture
def renderer() -> FakeRenderer:
    return FakeRenderer()


@pytest.fixture
async def client(site: Site, renderer: FakeRenderer) -> AsyncIterator[httpx.AsyncClient]:
    site.model.reply = lambda prompt: f" {chr(10).join(LINES)}<eom>"
    async with client_of(site, renderer=renderer) as client:
        yield client


def blocks_of(events: Events) -> list[str]:
    """The blocks as a reader has them at the end."""
    shown: dict[int, str] = {}
    for _, kind, data in events:
        if kind == "reset":
            shown.clear()
        elif kind == "html":
            assert data["block"] <= len(shown), "a gap"
            shown[data["block"]] = data["html"]
    return [shown[index] for index in range(len(shown))]


def others(events: Events) -> Events:
    return [event for event in events if event[1] != "html"]


async def test_blocks_come_beside_the_events_and_before_the_end(
    site: Site, client: httpx.AsyncClient
) -> None:
    turns = await new_session(site)
    response = await client.post(turns, params=HTML, json=STREAM)
    events = parsed(response.text)
    assert blocks_of(events) == BLOCKS and events[-1][1] == "done"
    assert "event: html\ndata: " in response.text, "without an id of their own"
    plain = await client.get(f"{turns}/{events[0][2]['id']}/events")
    assert others(events) == parsed(plain.text)


async def test_a_turn_that_is_made_again_is_rendered(site: Site, client: httpx.AsyncClient) -> None:
    turns = await new_session(site)
    first = (await client.post(turns, json={"user": "hi"})).json()["turn"]["id"]
    path = f"{turns}/{first}/regenerate"
    again = await client.post(path, params=HTML, json={"stream": True})
    assert blocks_of(parsed(again.text)) == BLOCKS


async def test_who_comes_back_gets_all_blocks(site: Site, client: httpx.AsyncClient) -> None:
    turns = await new_session(site)
    whole = parsed((await client.post(turns, json=STREAM)).text)
    path = f"{turns}/{whole[0][2]['id']}/events"
    for after in range(len(whole) - 1):
        rest = await client.get(path, params=HTML, headers={"Last-Event-ID": str(after)})
        events = parsed(rest.text)
        assert others(events) == whole[after + 1 :]
        assert blocks_of(events) == BLOCKS
    end = await client.get(path, params={**HTML, "after": len(whole) - 1})
    assert end.status_code == 204


async def test_a_turn_that_is_told_anew_is_rendered_anew(
    site: Site, client: httpx.AsyncClient, store_url: str
) -> None:
    turns = await new_session(site)
    turn_id = (await client.post(turns, json={"user": "hi"})).json()["turn"]["id"]
    async with Redis.from_url(store_url) as redis:
        await redis.delete(*[key async for key in redis.scan_iter("*:live:*")])
    path = f"{turns}/{turn_id}/events"
    events = parsed((await client.get(path, params=HTML)).text)
    assert [kind for _, kind, _ in others(events)] == ["reset", "delta", "done"]
    assert blocks_of(events) == BLOCKS
    last = events[-1][0]
    assert (await client.get(path, params={**HTML, "after": last})).status_code == 204
    rest = parsed((await client.get(path, params={**HTML, "after": int(last) - 1})).text)
    assert [kind for _, kind, _ in others(rest)] == ["done"] and blocks_of(rest) == BLOCKS


async def test_events_do_not_wait_for_a_renderer_that_hangs(
    site: Site, client: httpx.AsyncClient, renderer: FakeRenderer
) -> None:
    renderer.may_go_on.clear()
    turns = await new_session(site)
    response = await client.post(turns, params=HTML, json=STREAM)
    events = parsed(response.text)
    assert blocks_of(events) == ["<p>one<br>\ntwo<br>\nthree</p>"], "escaped text"
    kinds = [kind for _, kind, _ in events]
    assert kinds.index("html") == len(kinds) - 2 and kinds[-1] == "done"


async def test_a_failed_turn_is_not_waited_for(
    site: Site, client: httpx.AsyncClient, renderer: FakeRenderer
) -> None:
    renderer.may_go_on.clear()
    async with held_turn(site) as (turns, turn_id):
        path = f"{turns}/{turn_id}/events"
        reading = asyncio.create_task(client.get(path, params=HTML))
        await until(lambda: bool(renderer.asked))
        await client.post(f"{turns}/{turn_id}/cancel", json={})
        renderer.may_go_on.set()
        events = parsed((await reading).text)
    assert events[-1][2]["error"]["code"] == "turn_cancelled"


async def test_a_reader_that_leaves_leaves_no_task(
    site: Site, client: httpx.AsyncClient, renderer: FakeRenderer
) -> None:
    renderer.may_go_on.clear()
    async with held_turn(site) as (turns, turn_id):
        before = len(asyncio.all_tasks())
        path = f"{turns}/{turn_id}/events"
        reading = asyncio.create_task(client.get(path, params=HTML))
        await until(lambda: bool(renderer.asked))
        reading.cancel()
        await until(lambda: len(asyncio.all_tasks()) == before)


async def test_who_does_not_ask_pays_nothing(
    site: Site, client: httpx.AsyncClient, renderer: FakeRenderer
) -> None:
    turns = await new_session(site)
    turn_id = parsed((await client.post(turns, json=STREAM)).text)[0][2]["id"]
    await client.get(f"{turns}/{turn_id}/events")
    session = (await client.get(turns.removesuffix("/turns"), params={"all": "true"})).json()
    assert session["turns"][0]["html"] is None and session["tree"][0]["html"] is None
    assert (renderer.asked, renderer.num_opened) == ([], 0)


@pytest.mark.parametrize("value", ["", "HTML", "text", "1"])
async def test_nothing_else_is_rendered(site: Site, client: httpx.AsyncClient, value: str) -> None:
    turns = await new_session(site)
    turn_id = (await client.post(turns, json={"user": "hi"})).json()["turn"]["id"]
    query = {"render": value}
    for response in (
        await client.get(turns.removesuffix("/turns"), params=query),
        await client.get(f"{turns}/{turn_id}/events", params=query),
        await client.post(turns, params=query, json=STREAM, headers=KEY),
        await client.post(f"{turns}/{turn_id}/regenerate", params=query, json={}),
    ):
        assert_error(response, 400, "invalid_value")
        assert response.json()["error"]["param"] == "render"
    session = (await client.get(turns.removesuffix("/turns"), params={"all": "true"})).json()
    assert len(session["tree"]) == 1, "a refused request starts nothing"


async def test_a_session_has_its_replies_as_blocks(
    site: Site, client: httpx.AsyncClient, renderer: FakeRenderer
) -> None:
    turns = await new_session(site)
    turn_id = (await client.post(turns, json={"user": "hi"})).json()["turn"]["id"]
    await client.post(f"{turns}/{turn_id}/regenerate", json={})
    path = turns.removesuffix("/turns")
    session = (await client.get(path, params=HTML)).json()
    assert [turn["html"] for turn in session["turns"]] == [BLOCKS] and session["tree"] is None
    tree = (await client.get(path, params={**HTML, "all": "true"})).json()["tree"]
    assert [turn["html"] for turn in tree] == [BLOCKS, BLOCKS]
    renderer.may_go_on.clear()
    late = (await client.get(path, params=HTML)).json()
    assert late["turns"][0]["html"] == ["<p>one<br>\ntwo<br>\nthree</p>"]
