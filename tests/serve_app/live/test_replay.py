"""Turns that are made again from what is stored."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from moss_tp.sampling_params import SamplingParams
from plugins_svc.sdk.output import Item, PluginOutput
from serve_app.chat.reply import create_replier
from serve_app.errors import TurnNotFoundError
from serve_app.live.replay import Replays
from serve_app.prompt.builder import PromptBuilder
from serve_app.sessions.session import new_token
from tests.serve_app.live.ingresses import Ingress, Ingresses, stored
from tests.support.chat_fakes import CharCodec, FakeModel, FakePlugins, think_of
from tests.support.fakes.pictures import PICTURE

ENABLED = frozenset({"calculator", "web_search", "text_to_image"})
HITS = PluginOutput(True, items=(Item("Moss", "", "A plant."), Item("More", "u", "Of it.")))


def a_model() -> FakeModel:
    calls = 'Search("moss"), Calculate("1+1"), Calculate("1/0"), Text2Image("a fox")'
    return FakeModel(think=think_of(calls), reply=lambda prompt: f" {len(prompt)} ids<eom>")


def add(ingresses: Ingresses) -> Ingress:
    answers = {"moss": HITS, "1+1": PluginOutput(True, ("2",)), "1/0": PluginOutput.no_result()}
    return ingresses.add(a_model(), FakePlugins(answers={**answers, "a fox": PICTURE}))


class Maker:
    """Says what makes the replies now."""

    def __init__(self, **made_up: Any) -> None:
        self._made_up = made_up

    async def make_up(self) -> Mapping[str, Any]:
        return self._made_up


async def test_a_turn_is_made_again_without_its_plugins(ingresses: Ingresses) -> None:
    ingress, uid = add(ingresses), await ingresses.session()
    await ingress.read(await ingress.start(uid, enabled=ENABLED))
    started = await ingress.start(uid, enabled=ENABLED)
    await ingress.read(started)
    num_calls = len(ingress.plugins.calls)
    made = await ingress.live.replay(uid, started.id)
    assert (made.differences, made.changed) == ({}, ())
    assert len(ingress.plugins.calls) == num_calls
    first, second = ingress.model.requests[-4:-2], ingress.model.requests[-2:]
    assert [r.params for r in first] == [r.params for r in second], "seeds included"
    assert [r.prompt_ids for r in first] == [r.prompt_ids for r in second]


async def test_other_bytes_are_found(ingresses: Ingresses) -> None:
    ingress, uid = add(ingresses), await ingresses.session()
    started = await ingress.start(uid, enabled=ENABLED)
    await ingress.read(started)
    ingress.model.reply = lambda prompt: " another<eom>"
    made = await ingress.live.replay(uid, started.id)
    assert (made.changed, made.reply) == (("reply",), "another")


@pytest.mark.parametrize("how", ["cancelled", "length"])
async def test_a_cut_reply_is_made_up_to_its_number_of_tokens(
    ingresses: Ingresses, how: str
) -> None:
    ingress, uid = add(ingresses), await ingresses.session()
    never = asyncio.Event()

    async def hang(is_reply: bool, num_tokens: int) -> None:
        if is_reply and num_tokens == 3 and how == "cancelled":
            await never.wait()

    ingress.model.wait = hang
    params = SamplingParams(max_tokens=2**31 if how == "cancelled" else 3)
    started = await ingress.start(uid, enabled=ENABLED, params=params)
    if how == "cancelled":
        await stored(started, 3)
        await ingress.cancel(started, keep=True)
    await ingress.read(started)
    (turn,) = (await ingresses.load(uid)).turns
    assert turn.finish_reason == how and turn.make_up["num_tokens"] == 3
    never.set()
    made = await ingress.live.replay(uid, started.id)
    assert (made.changed, made.reply) == ((), turn.reply)


async def test_what_differs_is_said_and_nothing_made(ingresses: Ingresses) -> None:
    ingress, uid = add(ingresses), await ingresses.session()
    started = await ingress.start(uid, enabled=ENABLED)
    await ingress.read(started)
    session, model = await ingresses.load(uid), a_model()
    prompts = PromptBuilder(CharCodec(), "Be brief.\n")
    replays = Replays(create_replier(model, FakePlugins(), prompts), Maker(tp=4), 30)
    made = await replays.replay(session, started.id)
    assert made.differences == {"tp": (None, 4)} and model.requests == []
    other = PromptBuilder(CharCodec(), "Be long.\n")
    replays = Replays(create_replier(model, FakePlugins(), other), Maker(), 30)
    assert list((await replays.replay(session, started.id)).differences) == ["prompt"]
    assert model.requests == []


async def test_only_what_is_stored_can_be_made_again(ingresses: Ingresses) -> None:
    ingress, uid = add(ingresses), await ingresses.session()
    with pytest.raises(TurnNotFoundError):
        await ingress.live.replay(uid, new_token())
