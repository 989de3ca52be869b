"""Texts of which there is nothing: users' empty ones, and thoughts that say that there are none.

Where the contract is silent, an empty text is what it is to OpenAI's and vLLM's servers. A model
that thinks nothing says so, or is told so: no dialect shows that as its thoughts.
"""

import json
from typing import Any

import pytest

from tests.serve_app.http.endpoints.sites.chat_site import USER, complete, stream, text_of
from tests.support.site import Site

CHAT, RAW, TURNS = "/v1/chat/completions", "/v1/completions", "/v1/sessions/{uid}/turns"


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], **more}


# OpenAI and vLLM take an empty message. A list of no parts, or no prompt, is none to OpenAI.
STATELESS: list[tuple[str, dict[str, Any], int]] = [
    (CHAT, user(""), 200),
    (CHAT, user("", stream=True), 200),
    (CHAT, user([{"type": "text", "text": ""}]), 200),
    (CHAT, user([]), 400),
    (CHAT, user(None), 400),
    (CHAT, {"messages": [{"role": "system", "content": ""}, *user("")["messages"]]}, 200),
    (CHAT, {"messages": [{"role": "system", "content": []}, *user("a")["messages"]]}, 400),
    (CHAT, {"messages": [{"role": "assistant", "content": []}, *user("")["messages"]]}, 200),
    (CHAT, {"messages": []}, 400),
    (RAW, {"prompt": ""}, 400),
    (RAW, {"prompt": []}, 400),
    (RAW, {"prompt": ["a", ""]}, 400),
    ("/tokenize", {"prompt": ""}, 200),
    ("/tokenize", user(""), 200),
    ("/detokenize", {"tokens": []}, 200),
]
# A turn that is stored is a user's text and a reply to it.
STORED: list[tuple[str, dict[str, Any], int]] = [
    ("/", {"prompt": ""}, 400),
    ("/api/inference", {"request": ""}, 400),
    (TURNS, {"user": ""}, 400),
    (CHAT, user("", session_id="{uid}"), 400),
    (CHAT, user([{"type": "text", "text": ""}], session_id="{uid}"), 400),
    (CHAT, user("hi", session_id="{uid}"), 200),
]


@pytest.mark.parametrize(("path", "body", "status"), STATELESS)
async def test_a_text_may_be_empty(
    site: Site, path: str, body: dict[str, Any], status: int
) -> None:
    response = await site.client.post(path, json=body)
    assert response.status_code == status, response.text


@pytest.mark.parametrize(("path", "body", "status"), STORED)
async def test_a_stored_turn_has_a_text(
    site: Site, path: str, body: dict[str, Any], status: int
) -> None:
    uid = (await site.post()).json()["uid"]
    named = body | ({"session_id": uid} if "session_id" in body else {})
    response = await site.client.post(path.format(uid=uid), json=named)
    assert response.status_code == status, response.text
    turns = (await site.client.get(f"/v1/sessions/{uid}")).json()["turns"]
    assert len(turns) == 1 + (status == 200) and all(turn["user"] for turn in turns)


# What the first pass writes, and the thoughts that clients read.
PASSES = {
    "None": (" None<eot>\n<|Commands|>: None<eoc>", ""),
    "nothing": ("<eom>", ""),
    "some": (" None of it.<eot>\n<|Commands|>: None<eoc>", "None of it."),
}


@pytest.mark.parametrize("name", PASSES)
async def test_chat_completions_show_the_thoughts_that_there_are(site: Site, name: str) -> None:
    written, shown = PASSES[name]
    site.model.think = lambda prompt: written
    answer = (await complete(site)).json()["choices"][0]["message"]
    assert answer.get("reasoning", "") == answer.get("reasoning_content", "") == shown
    assert ("reasoning" in answer) == bool(shown)
    chunks = await stream(site)
    assert text_of(chunks, "reasoning") == shown and text_of(chunks) == "turn 1"


@pytest.mark.parametrize("name", PASSES)
async def test_stored_turns_show_the_thoughts_that_there_are(site: Site, name: str) -> None:
    written, shown = PASSES[name]
    site.model.think = lambda prompt: written
    uid = (await site.client.post("/v1/sessions", json={})).json()["id"]
    path = f"/v1/sessions/{uid}/turns"
    told = await site.client.post(path, json={"user": "hi", "stream": True})
    data = [json.loads(line[6:]) for line in told.text.splitlines() if line.startswith("data: ")]
    thoughts = [each["text"] for each in data[1:2]]
    assert thoughts == [shown] and data[-1]["turn"]["thoughts"] == shown
    turn_id = data[-1]["turn"]["id"]
    for read in (f"{path}/{turn_id}", f"{path}/{turn_id}/events"):
        assert '"None"' not in (await site.client.get(read)).text
    assert (await site.client.get(f"{path}/{turn_id}")).json()["thoughts"] == shown
    (turn,) = (await site.client.get(f"/v1/sessions/{uid}")).json()["turns"]
    assert turn["thoughts"] == shown
    regenerated = await site.client.post(f"{path}/{turn_id}/regenerate", json={})
    assert regenerated.json()["turn"]["thoughts"] == shown


@pytest.mark.parametrize("name", PASSES)
async def test_a_repeated_key_shows_the_thoughts_that_there_are(site: Site, name: str) -> None:
    written, shown = PASSES[name]
    site.model.think = lambda prompt: written
    uid = (await site.post()).json()["uid"]
    for _ in range(2):
        answer = await site.client.post(
            "/v1/chat/completions",
            json={"messages": [USER], "session_id": uid},
            headers={"Idempotency-Key": "k" * 20},
        )
        message = answer.json()["choices"][0]["message"]
        assert (message["content"], message.get("reasoning", "")) == ("turn 2", shown)
