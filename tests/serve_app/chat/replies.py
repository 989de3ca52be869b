"""Replies of the stateless core over fakes, as the tests of this room make them."""

import time
from collections.abc import AsyncGenerator

from moss_tp.sampling_params import SamplingParams
from serve_app.chat.events import Event
from serve_app.chat.reply import create_replier
from serve_app.chat.request import ReplyRequest
from serve_app.prompt.builder import PromptBuilder
from serve_app.prompt.exchange import Exchange
from serve_app.prompt.plain import PlainPromptBuilder
from tests.support.chat_fakes import CharCodec, FakeModel, FakePlugins

CODEC = CharCodec()
META = "Be brief.\n"
PROMPTS = PromptBuilder(CODEC, META)
PLAIN = PlainPromptBuilder(CODEC, META)
HISTORY = (Exchange("hi", "Greet.", "None", "\nNone\n", "hello"),)
PARAMS = SamplingParams(max_tokens=2**31, seed=5)


def a_request(params: SamplingParams = PARAMS, time_s: float = 30) -> ReplyRequest:
    return ReplyRequest(
        request_id="r",
        history=HISTORY,
        user="你好",
        params=params,
        enabled=frozenset({"calculator", "web_search"}),
        max_length=2048,
        deadline=time.monotonic() + time_s,
        owner="ann",
        session_id="s",
        priority=3,
    )


def reply(
    model: FakeModel, request: ReplyRequest, plugins: FakePlugins | None = None
) -> AsyncGenerator[Event]:
    """In the plain dialogue if there are no plugins."""
    prompts = PLAIN if plugins is None else PROMPTS
    return create_replier(model, plugins or FakePlugins(), prompts).reply(request)


async def events_of(
    model: FakeModel, request: ReplyRequest, plugins: FakePlugins | None = None
) -> list[Event]:
    return [event async for event in reply(model, request, plugins)]
