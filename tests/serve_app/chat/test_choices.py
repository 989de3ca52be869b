"""Several choices of one request: their seeds, their shared prompt and plugin calls, their end."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import pytest

from moss_tp.errors import EngineDeadError
from moss_tp.sampling_params import derive_seed
from plugins_svc.sdk.output import PluginOutput
from serve_app.chat.events import Done, Event, PluginCall
from tests.serve_app.chat.replies import (
    PARAMS,
    a_request,
    events_of,
    reply,
)
from tests.support.chat_fakes import FakeModel, FakePlugins, think_of


async def test_equal_calls_of_several_choices_run_once_unless_they_have_effects(
    model: FakeModel, plugins: FakePlugins
) -> None:
    model.think = think_of('Calculate("1+1"), Text2Image("cat")')
    plugins.answers["1+1"] = PluginOutput(True, ("2",))
    request = replace(
        a_request(replace(PARAMS, n=3)), enabled=frozenset({"calculator", "text_to_image"})
    )
    events = await events_of(model, request, plugins)
    assert Counter(map(str, plugins.calls)) == {'Calculate("1+1")': 1, 'Text2Image("cat")': 3}
    outputs = [e.output for e in events if isinstance(e, PluginCall) and e.name == "Calculate"]
    assert outputs.count("2") == 3
    plugins.calls.clear()
    await events_of(model, a_request(), plugins)
    assert len(plugins.calls) == 1, "another request runs its own calls"


async def test_each_pass_and_choice_has_its_own_seed(
    model: FakeModel, plugins: FakePlugins
) -> None:
    await events_of(model, a_request(replace(PARAMS, n=2)), plugins)
    seeds = {request.request_id: request.params.seed for request in model.requests}
    assert seeds == {f"r-{c}-{p}": derive_seed(5, c, p) for c in (0, 1) for p in (1, 2)}
    assert len(set(seeds.values())) == 4


async def test_a_request_without_a_seed_gets_a_random_one(
    model: FakeModel, plugins: FakePlugins
) -> None:
    for _ in range(2):
        await events_of(model, a_request(replace(PARAMS, seed=None)), plugins)
    seeds = [params.seed for params in model.params]
    assert None not in seeds and len(set(seeds)) == 4


async def test_each_choice_has_all_its_events_and_counts_the_prompt_once(
    model: FakeModel, plugins: FakePlugins
) -> None:
    model.think = think_of('Calculate("1")')
    alone = await events_of(model, a_request(), plugins)
    events = await events_of(model, a_request(replace(PARAMS, n=3)), plugins)
    for index in range(3):
        own = [event for event in events if event.choice == index]
        assert [type(event) for event in own] == [type(event) for event in alone]
        assert [e.id for e in own if isinstance(e, PluginCall)] == [f"r-{index}-0"] * 2
    num_prompt = len(model.prompt_ids[0])
    done = [event for event in events if isinstance(event, Done)]
    usages = {event.choice: event.usage.prompt_tokens for event in done}
    assert usages[0] - num_prompt == usages[1] == usages[2]


async def test_other_choices_begin_when_the_first_has_computed_the_prompt(
    model: FakeModel, plugins: FakePlugins
) -> None:
    num_requests: list[int] = []

    async def record(is_reply: bool, num_tokens: int) -> None:
        await asyncio.sleep(0.05 if num_tokens == 0 else 0)
        num_requests.append(len(model.requests))

    model.wait = record
    await events_of(model, a_request(replace(PARAMS, n=3)), plugins)
    assert num_requests[0] == 1 and len(model.requests) == 6


async def test_an_error_of_one_choice_aborts_the_others(
    model: FakeModel, plugins: FakePlugins
) -> None:
    async def fail(is_reply: bool, num_tokens: int) -> None:
        if is_reply and num_tokens == 2:
            raise EngineDeadError("a rank is dead")
        await asyncio.sleep(0)

    model.wait = fail
    with pytest.raises(EngineDeadError):
        await events_of(model, a_request(replace(PARAMS, n=3)), plugins)
    assert model.num_running == 0


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_request_that_ends_anywhere_leaves_nothing_running(is_cancelled: bool) -> None:
    """It is closed after each number of events, or cancelled after each number of loop steps."""
    task = asyncio.current_task()
    for count in range(300):
        model, plugins = FakeModel(think=think_of('Calculate("1"), Calculate("2")')), FakePlugins()
        events = reply(model, a_request(replace(PARAMS, n=2)), plugins)
        stop = _cancel_after if is_cancelled else _close_after
        is_done = await stop(count, events, model)
        assert (model.num_running, plugins.num_running) == (0, 0)
        assert asyncio.all_tasks() == {task}
        if is_done:
            return
    raise AssertionError("the reply never came to its end")


async def _close_after(num_events: int, events: AsyncGenerator[Event], model: FakeModel) -> bool:
    async with aclosing(events):
        for _ in range(num_events):
            if await anext(events, None) is None:
                return True
    return False


async def _cancel_after(num_steps: int, events: AsyncGenerator[Event], model: FakeModel) -> bool:
    async def read() -> None:
        async with aclosing(events):
            async for _ in events:
                pass

    task = asyncio.create_task(read())
    while not model.requests:  # until the prompt has been encoded, in a thread
        await asyncio.sleep(0.001)
    for _ in range(num_steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    return not task.cancelled()
