"""Chat completions that continue a session."""

import json
from typing import Any

import pytest

from plugins_svc.sdk.output import PluginOutput
from serve_app.api.openai.chat_answer import ChatCompletion
from tests.serve_app.http.clients import client_of
from tests.serve_app.http.endpoints.sites.chat_site import USER, complete, stream, text_of
from tests.support.chat_fakes import think_of
from tests.support.fakes.gates import FakeGate
from tests.support.site import Site


async def new_session(site: Site) -> str:
    return str((await site.post()).json()["uid"])


async def test_a_session_goes_on(site: Site) -> None:
    uid = await new_session(site)
    answer = (await complete(site, session_id=uid)).json()
    ChatCompletion.model_validate(answer, extra="forbid")
    assert answer["session_id"] == uid
    assert answer["choices"][0]["message"]["content"] == "turn 2"
    chunks = await stream(site, session_id=uid)
    assert text_of(chunks) == "turn 3" and chunks[0]["session_id"] == uid
    history = (await site.post(uid=uid)).json()["history"]
    assert len(history) == 4, "every turn was stored"


async def test_a_repeated_key_tells_the_stored_turn(site: Site) -> None:
    uid = await new_session(site)
    site.model.think = think_of('Calculate("1+1")')
    site.plugins.answers["1+1"] = PluginOutput(True, ("2",))
    headers = {"Idempotency-Key": "k" * 20}
    body: dict[str, Any] = {"messages": [USER], "session_id": uid}
    post = site.client.post
    first = await post("/v1/chat/completions", json=body, headers=headers)
    again = await post("/v1/chat/completions", json=body, headers=headers)
    assert first.json()["choices"] == again.json()["choices"]
    assert first.json()["usage"] == again.json()["usage"]
    streamed = await post("/v1/chat/completions", json={**body, "stream": True}, headers=headers)
    chunks = [json.loads(e.removeprefix("data: ")) for e in streamed.text.split("\n\n")[:-2]]
    assert text_of(chunks) == "turn 2" and text_of(chunks, "reasoning") == "Use it."
    other = {**body, "temperature": 0}
    mismatch = await post("/v1/chat/completions", json=other, headers=headers)
    assert mismatch.status_code == 422 and len(site.plugins.calls) == 1


@pytest.mark.parametrize("uid", ["0" * 32, "x", "", None])
async def test_a_foreign_session_is_as_unknown_as_none(site: Site, uid: str | None) -> None:
    client = client_of(site, gate=FakeGate(), requires_key=True)
    ann, bob = ({"apikey": f"key-of-{name}"} for name in ("ann", "bob"))
    if uid is None:
        uid = (await client.post("/", json={"prompt": "hi"}, headers=ann)).json()["uid"]
    body = {"messages": [USER], "session_id": uid}
    for is_stream in (False, True):
        sent = {**body, "stream": is_stream}
        response = await client.post("/v1/chat/completions", json=sent, headers=bob)
        assert response.status_code == 404
        assert response.json()["error"] == {
            "message": "there is no such session",
            "type": "invalid_request_error",
            "param": None,
            "code": "session_not_found",
        }
