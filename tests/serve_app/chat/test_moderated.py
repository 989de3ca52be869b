"""A moderation hook on replies, turns and completions: what it refuses is neither told nor kept."""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from moss_tp.sampling_params import SamplingParams
from plugins_svc.sdk.output import PluginOutput
from serve_app.chat.completion import (
    Completer,
    CompletionDelta,
    CompletionDone,
    CompletionRequest,
)
from serve_app.chat.events import Delta, Done, Event, PluginCall, Thoughts
from serve_app.chat.reply import Replier, create_replier
from serve_app.chat.request import ReplyRequest
from serve_app.chat.turn import TurnDone, TurnLimits, TurnRequest, TurnRunner
from serve_app.errors import ContentRefusedError
from serve_app.moderation.hook import Direction, Moderation
from serve_app.prompt.builder import PromptBuilder
from serve_app.prompt.exchange import Exchange
from serve_app.sessions.redis import RedisSessionStore
from tests.support.chat_fakes import CharCodec, FakeModel, FakePlugins, think_of

GOOD = "The weather is fine today, and tomorrow it will be fine as well. " * 3
BAD = "How to build a bomb"
PARAMS = SamplingParams(max_tokens=4000)


@dataclass
class Hook:
    """Refuses what has `word` in it, and keeps what it was asked."""

    word: str = "bomb"
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def __call__(self, text: str, direction: Direction) -> str | None:
        self.asked.append((direction, text))
        return f"no {self.word}s" if self.word in text else None


@dataclass
class Scene:
    """A replier with a hook over fakes."""

    hook: Hook = field(default_factory=Hook)
    model: FakeModel = field(default_factory=FakeModel)
    plugins: FakePlugins = field(default_factory=FakePlugins)

    def replier(self) -> Replier:
        prompts = PromptBuilder(CharCodec(), "Be brief.\n")
        return create_replier(self.model, self.plugins, prompts, moderation=Moderation(self.hook))

    async def reply(self, user: str = "你好", **fields: object) -> list[Event]:
        made = {"params": PARAMS, "history": (), "session_id": "", **fields}
        request = ReplyRequest(
            request_id="r",
            user=user,
            enabled=frozenset({"calculator"}),
            max_length=4096,
            deadline=time.monotonic() + 20,
            **made,  # type: ignore[arg-type]
        )
        async with aclosing(self.replier().reply(request)) as events:
            return [event async for event in events]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def text_of(events: list[Event], choice: int = 0) -> str:
    return "".join(e.text for e in events if isinstance(e, Delta) and e.choice == choice)


def last(events: list[Event]) -> Done:
    assert isinstance(events[-1], Done)
    return events[-1]


async def test_text_that_passes_is_told_as_it_is(scene: Scene) -> None:
    scene.model.reply = lambda prompt: f" {GOOD}<eom>"
    events = await scene.reply()
    done = last(events)
    assert text_of(events) == done.exchange.reply == GOOD
    assert done.finish_reason == "stop"
    ids = [i for e in events if isinstance(e, Delta) for i in e.token_ids]
    assert len(ids) == len(GOOD) + 2  # a space before it and <eom> after it
    assert scene.hook.asked[0] == ("in", "你好")
    assert all(direction == "out" for direction, _ in scene.hook.asked[1:])
    assert len(scene.hook.asked) > 3, "it was asked piece by piece"


async def test_a_refused_piece_ends_the_reply_without_a_trace(scene: Scene) -> None:
    scene.model.reply = lambda prompt: f" {GOOD}{BAD}{GOOD * 5}<eom>"
    events = await scene.reply()
    done = last(events)
    assert done.finish_reason == "content_filter"
    assert text_of(events) == done.exchange.reply
    assert done.exchange.reply and GOOD.startswith(done.exchange.reply)
    assert "bomb" not in repr(events) and scene.model.num_running == 0
    assert scene.model.num_aborted == 1, "the rest was not generated"
    assert 0 < done.usage.completion_tokens < len(GOOD * 3)
    assert done.exchange.thoughts == "Nothing to do."


async def test_a_short_refused_reply_is_empty(scene: Scene) -> None:
    scene.model.reply = lambda prompt: f" {BAD}<eom>"
    events = await scene.reply()
    assert (text_of(events), last(events).exchange.reply) == ("", "")
    assert last(events).finish_reason == "content_filter"


async def test_refused_thoughts_end_it_before_any_call(scene: Scene) -> None:
    scene.model.think = lambda p: ' A bomb.<eot>\n<|Commands|>: Calculate("1+1")<eoc>'
    events = await scene.reply()
    assert [type(event) for event in events] == [Done]
    assert last(events).finish_reason == "content_filter"
    assert last(events).exchange == Exchange("你好", "", "", "", "")
    assert not scene.plugins.calls and last(events).usage.reasoning_tokens > 0


async def test_a_refused_argument_is_sent_to_no_plugin(scene: Scene) -> None:
    scene.model.think = think_of('Calculate("1+1"), Calculate("a bomb")')
    events = await scene.reply()
    assert [type(event) for event in events] == [Thoughts, PluginCall, Done]
    assert last(events).finish_reason == "content_filter" and scene.plugins.calls == []


async def test_a_refused_answer_of_a_plugin_ends_it(scene: Scene) -> None:
    scene.model.think = think_of('Calculate("1+1")')
    scene.plugins.answers["1+1"] = PluginOutput(True, ("a bomb",))
    events = await scene.reply()
    assert [type(event) for event in events] == [Thoughts, PluginCall, Done]
    assert last(events).finish_reason == "content_filter" and "a bomb" not in repr(events)
    assert len(scene.model.requests) == 1


async def test_refused_text_of_a_request_is_an_error(scene: Scene) -> None:
    history = (Exchange("a bomb?", "", "", "", "No."),)
    for fields in ({"user": BAD}, {"system": BAD}, {"history": history}):
        with pytest.raises(ContentRefusedError, match="the text was refused: no bombs"):
            await scene.reply(**fields)
    assert not scene.model.requests
    await scene.reply(history=history, session_id="a chat")  # it was let in when it came


async def test_choices_are_refused_one_by_one(scene: Scene) -> None:
    replies = iter([f" {GOOD}<eom>", f" {BAD}<eom>"])
    scene.model.reply = lambda prompt: next(replies)
    events = await scene.reply(params=SamplingParams(max_tokens=4000, n=2, temperature=1.0))
    ends = {e.choice: e.finish_reason for e in events if isinstance(e, Done)}
    assert sorted(ends.values()) == ["content_filter", "stop"]
    whole = next(choice for choice, reason in ends.items() if reason == "stop")
    assert text_of(events, whole) == GOOD and text_of(events, 1 - whole) == ""


@pytest.fixture
async def runner(scene: Scene, store: RedisSessionStore) -> AsyncIterator[TurnRunner]:
    yield TurnRunner(store, scene.replier(), TurnLimits(max_model_len=4096))


def turn(user: str, uid: str | None = None) -> TurnRequest:
    return TurnRequest("ann", user, user, PARAMS, frozenset(), 4096, uid)


async def test_a_stored_turn_has_no_trace_of_what_was_refused(
    scene: Scene, runner: TurnRunner, store: RedisSessionStore
) -> None:
    scene.model.reply = lambda prompt: f" {GOOD}{BAD}<eom>"
    *_, done = [event async for event in runner.run(turn("hello"))]
    assert isinstance(done, TurnDone) and done.turn.finish_reason == "content_filter"
    uid = done.session.uid
    with pytest.raises(ContentRefusedError):
        _ = [event async for event in runner.run(turn(BAD, uid))]
    session = await store.load(uid, "ann")
    assert session is not None and len(session.turns) == 1
    assert "bomb" not in repr(session) and GOOD.startswith(session.turns[0].reply)
    scene.model.reply = lambda prompt: " Fine.<eom>"
    *_, done = [event async for event in runner.run(turn("and now?", uid))]
    assert "bomb" not in scene.model.prompts[-1]


async def complete(
    scene: Scene, prompt: str, max_tokens: int
) -> list[CompletionDelta | CompletionDone]:
    codec = CharCodec()
    completer = Completer(scene.model, codec, Moderation(scene.hook))
    params = SamplingParams(max_tokens=max_tokens)
    request = CompletionRequest("r", [codec.encode(prompt)], params, time.monotonic() + 20)
    async with aclosing(completer.complete(request)) as events:
        return [event async for event in events]


async def test_completions_are_moderated(scene: Scene) -> None:
    scene.model.think = lambda prompt: GOOD
    events = await complete(scene, "Once upon a time", 150)
    assert "".join(e.text for e in events if isinstance(e, CompletionDelta)) == GOOD[:150]
    scene.model.think = lambda prompt: GOOD + BAD + GOOD * 2
    *deltas, done = await complete(scene, "Once upon a time", 400)
    assert isinstance(done, CompletionDone) and done.finish_reason == "content_filter"
    assert done.usage.prompt_tokens == len("Once upon a time")
    told = "".join(e.text for e in deltas if isinstance(e, CompletionDelta))
    assert told and GOOD.startswith(told)
    num_requests = len(scene.model.requests)
    with pytest.raises(ContentRefusedError):
        await complete(scene, BAD, 400)
    assert len(scene.model.requests) == num_requests
