"""Empty texts in every dialect: where the contract is silent, as OpenAI's and vLLM's servers."""

from typing import Any

import pytest

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
