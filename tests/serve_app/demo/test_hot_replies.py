"""The demo model at temperatures at which it goes on to other roles, on a real engine."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from moss_tp.dialogue import find_role_marker
from moss_tp.engine.async_engine import AsyncEngine
from moss_tp.engine.build import build_engine
from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.engine_config import EngineConfig
from moss_tp.sampling_params import SamplingParams
from moss_tp.tokenizer import Tokenizer
from serve_app.chat.events import Delta, Done, Thoughts
from serve_app.chat.reply import Replier, create_replier
from serve_app.demo.bundled import BUNDLED_MODEL
from serve_app.prompt.choose import Dialogue, build_prompts
from tests.serve_app.chat.replies import a_request
from tests.support.chat_fakes import FakePlugins

NUM_REPLIES = 25  # of each dialogue and temperature


class EngineModel:
    """The demo model as a ChatModel; `texts` are what it wrote, by request."""

    def __init__(self) -> None:
        self.engine = AsyncEngine(build_engine(EngineConfig(str(BUNDLED_MODEL), max_num_seqs=32)))
        self.texts: dict[str, str] = {}

    async def generate(self, request: EngineRequest, session_id: str) -> AsyncIterator[TokenDelta]:
        async for delta in self.engine.generate(request):
            self.texts[request.request_id] = self.texts.get(request.request_id, "") + delta.text
            yield delta


@pytest.fixture(scope="module")
def model() -> Iterator[EngineModel]:
    model = EngineModel()
    yield model
    model.engine.close()


@pytest.mark.parametrize("dialogue", ["plugin", "plain"])
async def test_no_reply_shows_a_role_marker(model: EngineModel, dialogue: Dialogue) -> None:
    prompts = build_prompts(Tokenizer.from_dir(BUNDLED_MODEL), BUNDLED_MODEL, dialogue)
    replier = create_replier(model, FakePlugins(), prompts)
    model.texts.clear()
    replies = [reply(replier, hot, n) for hot in (2.0, 10.0) for n in range(NUM_REPLIES)]
    await asyncio.gather(*replies)
    # The model of this test is hot enough: the filter had work to do.
    assert any(find_role_marker(text) is not None for text in model.texts.values())


async def reply(replier: Replier, temperature: float, seed: int) -> None:
    params = SamplingParams(temperature=temperature, top_p=1.0, seed=seed, max_tokens=150)
    request = replace(a_request(params, time_s=200), request_id=f"{temperature}-{seed}")
    events = [event async for event in replier.reply(request)]
    done = events[-1]
    assert isinstance(done, Done)
    told = "".join(event.text for event in events if isinstance(event, Delta))
    thoughts = "".join(event.text for event in events if isinstance(event, Thoughts))
    assert told == done.exchange.reply
    for text in (told, thoughts, done.exchange.commands):
        assert find_role_marker(text) is None, text
