"""Who is told a reply as a whole does not pay for a message every few tokens."""

from typing import Any

import pytest

from moss_tp.engine.request import DELTA_INTERVAL_S
from serve_app.chat.completion import Completer
from serve_app.chat.request import UNREAD_INTERVAL_S
from tests.serve_app.http.clients import client_of
from tests.support.chat_fakes import CharCodec, RawModel
from tests.support.site import Site

MESSAGES = [{"role": "user", "content": "hi"}]
PATIENT = {"max_time": 100}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/", {"prompt": "hi"}),
        ("/v1/chat/completions", {"messages": MESSAGES}),
        ("/v1/completions", {"prompt": "hi"}),
    ],
)
async def test_a_stream_is_read_as_it_comes(site: Site, path: str, body: dict[str, Any]) -> None:
    raw = RawModel()
    async with client_of(site, completer=Completer(raw, CharCodec())) as client:
        for is_streamed, interval_s in ((True, DELTA_INTERVAL_S), (False, UNREAD_INTERVAL_S)):
            asked = {**body, **PATIENT, "stream": is_streamed}
            assert (await client.post(path, json=asked)).status_code == 200
            request = (raw.requests or site.model.requests)[-1]
            assert request.delta_interval_s == interval_s


async def test_the_services_of_2023_have_no_streams(site: Site) -> None:
    body = {"request": "hi", **PATIENT}
    assert (await site.client.post("/api/inference", json=body)).status_code == 200
    assert site.model.requests[-1].delta_interval_s == UNREAD_INTERVAL_S


async def test_a_turn_of_a_session_too(site: Site) -> None:
    session = (await site.client.post("/v1/sessions", json={})).json()["id"]
    for is_streamed, interval_s in ((True, DELTA_INTERVAL_S), (False, UNREAD_INTERVAL_S)):
        asked = {"messages": MESSAGES, "session_id": session, "stream": is_streamed, **PATIENT}
        answer = await site.client.post("/v1/chat/completions", json=asked)
        assert answer.status_code == 200
        assert site.model.requests[-1].delta_interval_s == interval_s
