"""`GET /v1/plugins`, and pictures on their way from a plugin to the dialects and their owner."""

from dataclasses import replace
from typing import Any

import httpx
import pytest

from plugins_svc.sdk.output import PluginOutput
from plugins_svc.sdk.picture import Picture
from serve_app.access.principal import Principal
from serve_app.chat.reply import create_replier
from serve_app.prompt.builder import PromptBuilder
from serve_app.sessions.session import new_token
from tests.serve_app.http.clients import assert_error, client_of
from tests.support.chat_fakes import CharCodec, think_of
from tests.support.fakes.gates import ANN, BOB, FakeGate
from tests.support.fakes.pictures import PICTURE, PNG
from tests.support.site import Site

DRAWS = {"plugins": frozenset({"text_to_image"})}
RESULTS = "<|Results|>: Image generated successfully.<eor>"


@pytest.fixture
def painter(site: Site) -> httpx.AsyncClient:
    """A client of a site whose plugin draws one picture."""
    site.model.think = think_of('Text2Image("a fox")')
    site.plugins.answers["a fox"] = PICTURE
    return client_of(site, **DRAWS)


async def test_plugins_are_listed_as_openai_lists(site: Site) -> None:
    client = client_of(site, plugins=frozenset({"text_to_image", "calculator"}))
    answer = (await client.get("/v1/plugins")).json()
    assert answer["object"] == "list"
    assert answer["data"] == [
        {
            "id": "calculator",
            "object": "plugin",
            "call_name": "Calculate",
            "label": "Calculator",
            "description": "- Calculator: enabled. API: Calculate(expression)",
            "parameter": "expression",
            "has_effects": False,
        },
        {
            "id": "text_to_image",
            "object": "plugin",
            "call_name": "Text2Image",
            "label": "Text-to-image",
            "description": "- Text-to-image: enabled. API: Text2Image(description)",
            "parameter": "description",
            "has_effects": True,
        },
    ]


async def test_a_key_shows_its_plugins_only(site: Site) -> None:
    gate = FakeGate({"k": Principal("a", "1", plugins=frozenset({"text_to_image", "other"}))})
    names = frozenset({"text_to_image", "calculator"})
    client = client_of(site, gate=gate, requires_key=True, plugins=names)
    listed = (await client.get("/v1/plugins", headers={"apikey": "k"})).json()
    assert [plugin["id"] for plugin in listed["data"]] == ["text_to_image"]
    assert_error(await client.get("/v1/plugins"), 401, "invalid_api_key")


async def check_reference(client: httpx.AsyncClient, output: Any) -> None:
    """The output is one reference, and leads to the picture."""
    (image,) = output
    assert image == {"id": image["id"], "url": f"/v1/images/{image['id']}", "media_type": PNG[0]}
    found = await client.get(image["url"])
    assert (found.status_code, found.content) == (200, PNG[1])
    assert found.headers["Content-Type"] == "image/png"
    assert found.headers["Cache-Control"] == "private"
    assert found.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_live_turn_keeps_references(site: Site, painter: httpx.AsyncClient) -> None:
    uid = (await painter.post("/v1/sessions", json={})).json()["id"]
    body = {"user": "draw"}
    turn = (await painter.post(f"/v1/sessions/{uid}/turns", json=body)).json()["turn"]
    (call,) = turn["plugin_calls"]
    await check_reference(painter, call["output"])
    assert site.model.prompts[-1].count(RESULTS) == 1, "all that the model sees"
    (stored,) = (await painter.get(f"/v1/sessions/{uid}")).json()["turns"]
    assert stored["plugin_calls"] == [call]
    events = await painter.get(f"/v1/sessions/{uid}/turns/{turn['id']}/events?after=1")
    assert call["output"][0]["url"] in events.text
    await painter.delete(f"/v1/sessions/{uid}")
    assert_error(await painter.get(call["output"][0]["url"]), 404, "image_not_found")


async def test_extra_data_of_a_drawing(painter: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": new_token()}
    answers = [
        (await painter.post("/api/inference", json={"request": "draw"}, headers=headers)).json()
        for _ in range(2)
    ]
    assert answers[0] == answers[1], "the second one is the stored turn"
    ((drawn,),) = [answers[0]["extra_data"]]
    assert (drawn["type"], drawn["request"], [*drawn["data"]]) == ("draw", "a fox", ["0"])
    await check_reference(painter, drawn["data"].values())


@pytest.mark.parametrize("is_session", [False, True])
async def test_plugin_calls_of_chat_completions(
    site: Site, painter: httpx.AsyncClient, is_session: bool
) -> None:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "draw"}]}
    headers = {"Idempotency-Key": new_token()}
    if is_session:
        body["session_id"] = (await painter.post("/v1/sessions", json={})).json()["id"]
    calls = []
    for _ in range(1 + is_session):  # the stored turn is told in the same words
        answer = (await painter.post("/v1/chat/completions", json=body, headers=headers)).json()
        calls += answer["choices"][0]["message"]["plugin_calls"]
    await check_reference(painter, calls[0]["output"])
    assert all(call == calls[0] for call in calls) and len(site.plugins.calls) == 1
    assert (await painter.post("/v1/chat/completions", json={**body, "stream": True})).is_success


async def test_a_picture_is_for_its_owner(site: Site) -> None:
    client = client_of(site, gate=FakeGate(), requires_key=True)
    image_id = await site.images.put("ann", "", *PNG)
    url = f"/v1/images/{image_id}"
    assert (await client.get(url, headers={"apikey": ANN})).content == PNG[1]
    wrong = [url, f"/v1/images/{new_token()}", "/v1/images/x", f"/v1/images/{image_id.upper()}x"]
    answers = [await client.get(each, headers={"apikey": BOB}) for each in wrong]
    for answer in answers:
        assert_error(answer, 404, "image_not_found")
    assert len({answer.text for answer in answers}) == 1
    assert_error(await client.get(url), 401, "invalid_api_key")


@pytest.mark.parametrize("fault", ["forged", "no store"])
async def test_a_picture_that_cannot_be_kept_is_no_result(
    site: Site, painter: httpx.AsyncClient, fault: str
) -> None:
    if fault == "forged":
        picture = Picture("image/png", b"<script>")
        site.plugins.answers["a fox"] = PluginOutput(True, images=(picture,))
    else:
        replier = create_replier(
            site.model, site.plugins, PromptBuilder(CharCodec(), "Be brief.\n")
        )
        painter = client_of(replace(site), **DRAWS, replier=replier)
    body = {"messages": [{"role": "user", "content": "draw"}]}
    answer = (await painter.post("/v1/chat/completions", json=body)).json()
    (call,) = answer["choices"][0]["message"]["plugin_calls"]
    assert call["state"] == "failed" and "output" not in call
    assert "No result." in site.model.prompts[-1] and len(site.plugins.calls) == 1
