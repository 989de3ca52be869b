"""The stateless core: the events of a reply, its usage and engine requests."""

import asyncio
from dataclasses import replace
from itertools import pairwise

import pytest

from moss_tp.engine.request import DELTA_INTERVAL_S
from moss_tp.errors import DeadlineExceededError, InvalidRequestError
from plugins_svc.sdk.output import Item, PluginOutput
from serve_app.chat.events import Delta, Done, PluginCall, SearchItem, Thoughts, Usage
from serve_app.chat.reply import create_replier
from serve_app.chat.request import UNREAD_INTERVAL_S, ReplyRequest
from serve_app.chat.thinking import THOUGHTS_INTERVAL_S
from serve_app.prompt.exchange import Exchange
from tests.serve_app.chat.replies import (
    CODEC,
    META,
    PARAMS,
    PROMPTS,
    a_request,
    events_of,
    reply,
)
from tests.support.chat_fakes import FakeModel, FakePlugins, think_of


async def test_thoughts_calls_deltas_and_done_come_in_this_order(
    model: FakeModel, plugins: FakePlugins
) -> None:
    model.think = think_of('Search("a"), Calculate("1+1"), Search("b")')
    found = [Item(f"T{n}", f"u{n}", f"text {n}") for n in range(6)]
    plugins.answers = {
        "a": PluginOutput(True, items=tuple(found[:3])),
        "1+1": PluginOutput(True, ("2",)),
        "b": PluginOutput(True, items=tuple(found[3:])),
    }
    thoughts, *calls = (await events_of(model, a_request(), plugins))[:7]
    assert thoughts == Thoughts(0, "Use it.")
    a = PluginCall(0, "r-0-0", "Search", "a", "done", _numbered(found[:2], 1))
    one = PluginCall(0, "r-0-1", "Calculate", "1+1", "done", "2")
    b = PluginCall(0, "r-0-2", "Search", "b", "done", _numbered(found[3:5], 3))
    ended = [a, b, one]  # in the order of the Results
    assert calls[:3] == [replace(call, state="started", output=None) for call in (a, one, b)]
    assert [isinstance(call, PluginCall) and replace(call, ms=None) for call in calls[3:]] == ended
    assert all(isinstance(call, PluginCall) and call.ms is not None for call in calls[3:])
    assert "<|4|>: 'text 4'" in model.prompts[1] and "<|5|>" not in model.prompts[1]


def _numbered(items: list[Item], first: int) -> tuple[SearchItem, ...]:
    return tuple(
        SearchItem(n, item.title, item.url, item.snippet) for n, item in enumerate(items, first)
    )


async def test_a_call_without_a_result_fails(model: FakeModel, plugins: FakePlugins) -> None:
    model.think = think_of('Calculate("bad"), Search("none"), Calculate("slow")')
    plugins.answers = {"bad": ValueError(), "none": PluginOutput(True), "slow": 60.0}
    events = await events_of(model, a_request(), plugins)
    ended = [e for e in events if isinstance(e, PluginCall) and e.state != "started"]
    assert [(call.state, call.output) for call in ended] == [("failed", None)] * 3
    (slow,) = [call for call in ended if call.argument == "slow"]
    assert slow.ms is not None and 250 < slow.ms < 3000


async def test_deltas_hold_every_token_of_the_reply(model: FakeModel, plugins: FakePlugins) -> None:
    model.reply = lambda prompt: " a<sup><|7|></sup>b<eom>"
    events = await events_of(model, a_request(replace(PARAMS, logprobs=0)), plugins)
    deltas = [event for event in events if isinstance(event, Delta)]
    ids = [token_id for delta in deltas for token_id in delta.token_ids]
    assert ids == CODEC.spell(model.reply(""))
    assert [token.token_id for delta in deltas for token in delta.logprobs] == ids
    assert "".join(delta.text for delta in deltas) == "ab", "there is no item 7"


async def test_done_holds_the_exchange(model: FakeModel, plugins: FakePlugins) -> None:
    model.think = think_of('Calculate("1+1")')
    plugins.answers["1+1"] = PluginOutput(True, ("2",))
    *_, done = await events_of(model, a_request(), plugins)
    results = "\nCalculate(\"1+1\") => '2'\n"
    exchange = Exchange("你好", "Use it.", 'Calculate("1+1")', results, "turn 2")
    assert isinstance(done, Done) and done.exchange == exchange
    *_, done = await events_of(model, a_request())
    assert isinstance(done, Done) and done.exchange == Exchange("你好", "", "", "", "turn 2")


async def test_usage_counts_both_passes(model: FakeModel, plugins: FakePlugins) -> None:
    model.think = think_of('Calculate("1+1")')
    model.num_cached_tokens = 9
    plugins.answers["1+1"] = PluginOutput(True, ("2",))
    *_, done = await events_of(model, a_request(), plugins)
    assert isinstance(done, Done)
    num_thoughts = len(CODEC.spell(model.think("")))
    num_results = len(CODEC.spell(f"<|Results|>:{done.exchange.results}<eor>\n<|MOSS|>:"))
    assert done.usage == Usage(
        prompt_tokens=len(model.prompt_ids[0]) + num_results,
        cached_tokens=9,
        completion_tokens=num_thoughts + len(CODEC.spell(" turn 2<eom>")),
        reasoning_tokens=num_thoughts,
    )


async def test_usage_of_a_plain_reply(model: FakeModel) -> None:
    model.num_cached_tokens = 9
    *deltas, done = await events_of(model, a_request())
    assert isinstance(done, Done) and all(isinstance(event, Delta) for event in deltas)
    num_reply = len(CODEC.spell(" turn 2<eom>"))
    assert done.usage == Usage(len(model.prompt_ids[0]), 9, num_reply, 0)


@pytest.mark.parametrize("is_plain", [False, True])
async def test_the_finish_reason_reaches_the_end(
    model: FakeModel, plugins: FakePlugins, is_plain: bool
) -> None:
    async def hang(is_reply: bool, num_tokens: int) -> None:
        await asyncio.sleep(60 if num_tokens == 4 and is_reply else 0)

    async def finish_reason(request: ReplyRequest) -> str:
        *_, done = await events_of(model, request, None if is_plain else plugins)
        assert isinstance(done, Done)
        return done.finish_reason

    assert await finish_reason(a_request()) == "stop"
    assert await finish_reason(a_request(replace(PARAMS, max_tokens=3))) == "length"
    model.wait = hang
    assert await finish_reason(a_request(time_s=0.5)) == "length", "the deadline cut it off"


async def test_the_engine_learns_owner_priority_deadline_and_continuation(
    model: FakeModel, plugins: FakePlugins
) -> None:
    await events_of(model, a_request(time_s=30), plugins)
    first, second = model.requests
    assert (first.salt, first.priority, second.salt, second.priority) == ("ann", 3, "ann", 3)
    assert not first.is_continuation and second.is_continuation
    assert first.deadline_s is not None and second.deadline_s is not None
    assert 25 < second.deadline_s <= first.deadline_s <= 30
    shared = model.prompts[0].index("<|Human|>:")
    assert first.num_shared_tokens == second.num_shared_tokens == shared
    assert model.prompts[0][:shared].startswith(META)
    assert model.prompts[0][:shared].endswith("- Text-to-speech: disabled.\n")
    assert model.session_ids == ["s", "s"]
    # Nobody is told thoughts before they end.
    intervals_s = first.delta_interval_s, second.delta_interval_s
    assert intervals_s == (THOUGHTS_INTERVAL_S, DELTA_INTERVAL_S)


@pytest.mark.parametrize(
    ("time_s", "least_s", "most_s"),
    [(100, UNREAD_INTERVAL_S, UNREAD_INTERVAL_S), (10, 0.4, 0.5), (0.1, 0.04, 0.04)],
)
async def test_tokens_that_nobody_reads_yet_travel_together(
    model: FakeModel, time_s: float, least_s: float, most_s: float
) -> None:
    """But what the deadline cuts off is a small part of the reply."""
    await events_of(model, replace(a_request(time_s=time_s), is_streamed=False))
    (request,) = model.requests
    assert least_s <= request.delta_interval_s <= most_s


async def test_the_one_pass_of_the_plain_dialogue_is_no_continuation(model: FakeModel) -> None:
    await events_of(model, a_request())
    (request,) = model.requests
    assert not request.is_continuation and request.num_shared_tokens == len(META)


async def test_closing_during_a_plugin_call_cancels_it(
    model: FakeModel, plugins: FakePlugins
) -> None:
    model.think = think_of('Calculate("1"), Calculate("2"), Calculate("3")')
    plugins.answers = {"2": 0.25, "3": 0.25}
    events = reply(model, a_request(), plugins)
    async for event in events:
        if isinstance(event, PluginCall) and event.state == "done":
            break
    assert plugins.num_running == 2
    await events.aclose()
    assert plugins.num_running == 0


async def test_a_plugin_that_hangs_leaves_time_for_the_reply(model: FakeModel) -> None:
    """Even if the request has less time than a call may take."""
    model.think = think_of('Calculate("1")')
    plugins = FakePlugins({"1": 60.0})
    replier = create_replier(model, plugins, PROMPTS)
    *events, done = [event async for event in replier.reply(a_request(time_s=1))]
    assert isinstance(done, Done) and done.finish_reason == "stop"
    assert [event.state for event in events if isinstance(event, PluginCall)] == [
        "started",
        "failed",
    ]


@pytest.mark.parametrize(
    ("time_s", "expected_s"), [(300, (5, 60)), (40, (5, 20)), (6, (3, 3))], ids=str
)
async def test_a_call_gets_the_time_of_its_spec_within_the_deadline(
    model: FakeModel, plugins: FakePlugins, time_s: float, expected_s: tuple[float, float]
) -> None:
    model.think = think_of('Calculate("1"), Text2Image("a fox")')
    plugins.answers = dict.fromkeys(("1", "a fox"), PluginOutput(True, ("2",)))
    enabled = frozenset({"calculator", "text_to_image"})
    await events_of(model, replace(a_request(time_s=time_s), enabled=enabled), plugins)
    assert [call.name for call in plugins.calls] == ["Calculate", "Text2Image"]
    for given_s, spec_s in zip(plugins.timeouts_s, expected_s, strict=True):
        assert spec_s - 1 < given_s <= spec_s


async def test_a_deadline_before_the_reply_is_an_error(
    model: FakeModel, plugins: FakePlugins
) -> None:
    async def hang(is_reply: bool, num_tokens: int) -> None:
        await asyncio.sleep(60 if is_reply else 0)

    model.wait = hang
    for given in (plugins, None):
        with pytest.raises(DeadlineExceededError):
            await events_of(model, a_request(time_s=0.2), given)
    assert model.num_running == 0


async def test_bad_parameters_of_the_reply_are_refused_before_the_first_pass(
    model: FakeModel, plugins: FakePlugins
) -> None:
    params = replace(PARAMS, stop_token_ids=tuple(range(200, 264)))
    with pytest.raises(InvalidRequestError, match="stop_token_ids"):
        await events_of(model, a_request(params), plugins)
    assert model.requests == []


async def test_prompts_of_a_longer_history_extend_the_shorter_ones(model: FakeModel) -> None:
    request = a_request()
    for _ in range(3):
        *_, done = await events_of(model, request)
        assert isinstance(done, Done)
        request = replace(request, history=(*request.history, done.exchange))
    for shorter, longer in pairwise(model.prompts):
        assert longer.startswith(shorter)
