"""Ingresses that die in the middle of a turn: another one goes on, to the same bytes."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from itertools import count

from plugins_svc.sdk.output import Item, PluginOutput
from serve_app.live.event import LiveEvent
from tests.serve_app.live.halting import HaltingStore
from tests.serve_app.live.ingresses import Ingress, Ingresses, shape_of, stored, text_of
from tests.support.chat_fakes import FakeModel, FakePlugins, think_of

COMMANDS = 'Search("moss"), Calculate("1+1")'
HITS = PluginOutput(True, items=(Item("Moss", "", "A plant."),))
ENABLED = frozenset({"calculator", "web_search"})
# Held back: a citation that stands, one that is dropped, and what only looks like one at the end.
REPLY = " 你好<sup><|1|></sup> and<sup><|7|></sup> <sup>so<|M on<sup><|<eom>"
EOM = len(REPLY) - len("<eom>")  # its number as a token
SHOWN = "你好<sup><|1|></sup> and <sup>so<|M on<sup><|"


def a_model(wait: Callable[[bool, int], Awaitable[None]] | None = None) -> FakeModel:
    model = FakeModel(think=think_of(COMMANDS), reply=lambda prompt: REPLY)
    if wait is not None:
        model.wait = wait
    return model


def some_plugins() -> FakePlugins:
    return FakePlugins(answers={"moss": HITS, "1+1": PluginOutput(True, ("2",))})


def add(
    ingresses: Ingresses, model: FakeModel | None = None, store: HaltingStore | None = None
) -> Ingress:
    return ingresses.add(model or a_model(), some_plugins(), store)


async def undisturbed(ingresses: Ingresses) -> list[LiveEvent]:
    ingress = add(ingresses)
    started = await ingress.start(await ingresses.session(), idempotency_key="k", enabled=ENABLED)
    events = await ingress.read(started)
    assert text_of(events) == SHOWN
    return events


def check_same(events: list[LiveEvent], whole: list[LiveEvent]) -> None:
    """The same turn, but for its ids and times."""
    assert [event.number for event in events] == [*range(len(events))]
    shown, expected = shape_of(events), shape_of(whole)
    assert [kind for kind, _ in shown] == [kind for kind, _ in expected]
    for (kind, one), (_, other) in zip(shown, expected, strict=True):
        if kind == "delta":
            assert one == other
        elif kind == "done":
            for name in ("user", "thoughts", "commands", "results", "reply", "seed", "usage"):
                assert one["turn"][name] == other["turn"][name]
            calls = [[{**c, "id": "", "ms": 0} for c in d["turn"]["calls"]] for d in (one, other)]
            assert calls[0] == calls[1]
        elif kind == "plugin":
            assert {**one, "id": ""} == {**other, "id": ""}
            assert one["id"].split("-")[1:] == other["id"].split("-")[1:]


# Whether in the reply, and after how many tokens.
PLACES = [(False, 0), (False, 21), *((True, n) for n in (0, 1, 4, 21, 34, 40, 50, EOM))]


async def test_a_turn_is_taken_up_wherever_its_ingress_died(ingresses: Ingresses) -> None:
    whole = await undisturbed(ingresses)

    async def die_at(number: int, is_reply: bool, num_tokens: int) -> None:
        async with aclosing(ingresses.apart(number)) as apart:
            await check_death(apart, is_reply, num_tokens, whole)

    await asyncio.gather(*(die_at(n, *place) for n, place in enumerate(PLACES, 1)))


async def check_death(
    ingresses: Ingresses, is_reply: bool, num_tokens: int, whole: list[LiveEvent]
) -> None:
    is_there, place = asyncio.Event(), (is_reply, num_tokens)

    async def hang(*at: bool | int) -> None:
        if at == place:
            is_there.set()
            await asyncio.Event().wait()

    first, uid = add(ingresses, a_model(hang)), await ingresses.session()
    started = await first.start(uid, idempotency_key="k", enabled=ENABLED)
    await is_there.wait()
    if is_reply:
        await stored(started, num_tokens)
    second = add(ingresses)
    await first.die()
    check_same(await second.read(started), whole)
    told_ids = [len(request.output_ids) for request in second.model.requests]
    assert told_ids == ([num_tokens] if is_reply else [0, 0]), place
    (turn,) = (await ingresses.load(uid)).tree
    assert turn.reply == SHOWN
    calls = sorted(call.argument for call in second.plugins.calls)
    assert calls == ([] if is_reply else ["1+1", "moss"]), "the first's answers stand"


async def test_a_turn_is_taken_up_wherever_its_store_was_asked(ingresses: Ingresses) -> None:
    """Every step of a turn, just before it and just after it."""
    whole = await undisturbed(ingresses)
    died: set[str] = set()
    for step in count(step=7):
        cases = [(step + n, is_after) for n in range(7) for is_after in (False, True)]
        names = await asyncio.gather(
            *(die_at_step(ingresses.apart(n), *case, whole) for n, case in enumerate(cases, 1))
        )
        died |= {name for name in names if name}
        if not any(names):
            break
    assert died == {"start", "append", "find", "record", "end"}


async def die_at_step(
    ingresses: Ingresses, step: int, is_after: bool, whole: list[LiveEvent]
) -> str | None:
    """The step's name; None if the turn has no such step."""
    async with aclosing(ingresses):
        store = HaltingStore(ingresses.url, ingresses.settings)
        store.halt(step, is_after)
        first, uid = add(ingresses, store=store), await ingresses.session()
        has_ended = await run_to_halt(first, store, uid)
        await first.die()
        if has_ended:
            return None
        turn = await ingresses.only_turn(uid)
        if turn is None:
            assert store.steps == ["start"] and not is_after, "nobody was told of it"
            return "start"
        check_same(await add(ingresses).read(turn), whole)
        assert [turn.reply for turn in (await ingresses.load(uid)).tree] == [SHOWN]
        return store.steps[step]


async def run_to_halt(first: Ingress, store: HaltingStore, uid: str) -> bool:
    """Whether the turn ended before the store halted."""

    async def run() -> None:
        await first.read(await first.start(uid, idempotency_key="k", enabled=ENABLED))

    running = asyncio.create_task(run())
    halted = asyncio.create_task(store.is_halted.wait())
    await asyncio.wait({running, halted}, return_when=asyncio.FIRST_COMPLETED)
    has_ended = not store.is_halted.is_set()
    for task in (running, halted):
        task.cancel()
    results = await asyncio.gather(running, return_exceptions=True)
    assert not has_ended or results[0] is None
    return has_ended
