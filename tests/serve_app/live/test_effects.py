"""Plugin calls of live turns (G9): those with effects are sent at most once, whatever dies."""

import asyncio
from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from plugins_svc.protocol.calls import Call
from plugins_svc.sdk.output import PluginOutput
from serve_app.live.follower import INTERVAL_S
from serve_app.live.record import Hold
from serve_app.live.redis import LiveSettings, RedisLiveStore
from serve_app.live.store import Append, Ask, Standing
from serve_app.moderation.hook import Direction, Moderation
from serve_app.sessions.images import ImageFile
from serve_app.sessions.keys import RESULTS_MS, session_keys
from serve_app.sessions.redis_catalogue import RedisSessionCatalogue
from tests.serve_app.live.ingresses import OWNER, Ingress, Ingresses, text_of
from tests.support.chat_fakes import FakeModel, FakePlugins, think_of
from tests.support.fakes.pictures import PICTURE, PNG
from tests.support.waiting import until

DRAW, COUNT = "Text2Image", "Calculate"
ENABLED = frozenset({"text_to_image", "calculator"})


class HangingPlugins(FakePlugins):
    """Plugins that get their calls and never answer."""

    def __init__(self) -> None:
        super().__init__()
        self.has_call = asyncio.Event()

    async def run(self, call: Call, timeout_s: float) -> PluginOutput:
        self.calls.append(call)
        self.has_call.set()
        self.num_running += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.num_running -= 1
        raise AssertionError


def show_results(prompt: str) -> str:
    results = prompt.rpartition("<|Results|>:")[2].partition("<eor>")[0]
    return f" {results.strip()}<eom>"


def add(ingresses: Ingresses, call: str, plugins: FakePlugins) -> Ingress:
    model = FakeModel(think=think_of(f'{call}("1+1")'), reply=show_results)
    return ingresses.add(model, plugins)


@pytest.mark.parametrize(("name", "num_sent"), [(DRAW, 0), (COUNT, 1)])
async def test_a_call_without_an_answer_is_sent_again_only_if_it_is_pure(
    ingresses: Ingresses, name: str, num_sent: int
) -> None:
    hanging = HangingPlugins()
    first, uid = add(ingresses, name, hanging), await ingresses.session()
    second = add(ingresses, name, FakePlugins(answers={"1+1": PluginOutput(True, ("2",))}))
    started = await first.start(uid, enabled=ENABLED)
    await hanging.has_call.wait()
    await first.die()
    events = await second.read(started)
    assert len(second.plugins.calls) == num_sent
    text = text_of(events)
    assert ("No result." in text) == (num_sent == 0) and ("'2'" in text) == (num_sent == 1)
    states = [event.data["state"] for event in events if event.kind == "plugin"]
    assert states == ["started", "failed" if num_sent == 0 else "done"]
    (turn,) = (await ingresses.load(uid)).turns
    assert turn.reply == text and [call.state for call in turn.calls] == states[1:]


async def test_a_recorded_answer_stands(ingresses: Ingresses) -> None:
    is_there = asyncio.Event()

    async def hang(is_reply: bool, num_tokens: int) -> None:
        if is_reply:
            is_there.set()
            await asyncio.Event().wait()

    first = add(ingresses, DRAW, FakePlugins(answers={"1+1": PluginOutput(True, ("one",))}))
    second = add(ingresses, DRAW, FakePlugins(answers={"1+1": PluginOutput(True, ("two",))}))
    first.model.wait = hang
    started = await first.start(await ingresses.session(), enabled=ENABLED)
    await is_there.wait()
    await first.die()
    events = await second.read(started)
    assert "successfully" in text_of(events) and second.plugins.calls == []
    outputs = [event.data.get("output") for event in events if event.kind == "plugin"]
    assert outputs == [None, "one"]


async def test_a_picture_is_made_once_and_kept(ingresses: Ingresses) -> None:
    """Whoever takes the turn up tells the picture that the first one has stored."""
    is_there = asyncio.Event()

    async def hang(is_reply: bool, num_tokens: int) -> None:
        if is_reply:
            is_there.set()
            await asyncio.Event().wait()

    first = add(ingresses, DRAW, FakePlugins(answers={"1+1": PICTURE}))
    second = add(ingresses, DRAW, FakePlugins(answers={"1+1": PICTURE}))
    first.model.wait = hang
    started = await first.start(await ingresses.session(), enabled=ENABLED)
    await is_there.wait()
    await first.die()
    events = await second.read(started)
    assert text_of(events) == "Image generated successfully." and second.plugins.calls == []
    (output,) = [e.data["output"] for e in events if e.kind == "plugin" and "output" in e.data]
    (turn,) = (await ingresses.load(started.uid)).turns
    assert turn.calls[0].output == output
    (image,) = output
    found = await second.images.find(image["id"], OWNER)
    assert found == ImageFile(*PNG) and image["url"] == f"/v1/images/{image['id']}"


async def test_the_key_of_a_call_is_the_turns(ingresses: Ingresses) -> None:
    ingress = add(ingresses, DRAW, FakePlugins(answers={"1+1": PluginOutput(True, ("one",))}))
    started = await ingress.start(await ingresses.session(), enabled=ENABLED)
    events = await ingress.read(started)
    ids = [event.data["id"] for event in events if event.kind == "plugin"]
    assert ids == [f"{started.id}-0-0"] * 2


class SlowStore(RedisLiveStore):
    """Events are stored `pause_s` late. `kinds` are those that were when a call was claimed."""

    pause_s = 0.2

    async def append(self, appends: Sequence[Append]) -> list[Standing]:
        await asyncio.sleep(self.pause_s)
        return await super().append(appends)

    async def claim(self, hold: Hold, call_id: str, deadline: float) -> bool:
        events = await self.read(Ask(hold.turn.uid, hold.turn.owner, hold.turn.id))
        self.kinds = [event.kind for event in events or ()]
        return await super().claim(hold, call_id, deadline)


async def pass_slowly(text: str, direction: Direction) -> None:
    await asyncio.sleep(0.02)


@pytest.mark.parametrize("moderation", [None, Moderation(pass_slowly)])
async def test_thoughts_are_stored_before_a_call_with_effects_is_sent(
    ingresses: Ingresses, moderation: Moderation | None
) -> None:
    store = SlowStore(ingresses.url, ingresses.settings)
    model = FakeModel(think=think_of(f'{DRAW}("1+1")'))
    ingress = ingresses.add(model, store=store, moderation=moderation)
    await ingress.read(await ingress.start(await ingresses.session(), enabled=ENABLED))
    assert len(ingress.plugins.calls) == 1
    assert store.kinds == ["turn", "thoughts", "plugin"], "and that it is called"


async def test_an_answer_stands_for_its_call_only(ingresses: Ingresses) -> None:
    """Thoughts that nobody has stored are made anew, and may call something else."""
    is_there = asyncio.Event()

    async def hang(is_reply: bool, num_tokens: int) -> None:
        if is_reply:
            is_there.set()
            await asyncio.Event().wait()

    store = SlowStore(ingresses.url, ingresses.settings)
    store.pause_s = 60
    model = FakeModel(think=think_of(f'{COUNT}("1+1")'), wait=hang)
    first = ingresses.add(model, FakePlugins(answers={"1+1": PluginOutput(True, ("2",))}), store)
    started = await first.start(await ingresses.session(), enabled=ENABLED)
    await is_there.wait()
    await first.die()
    model = FakeModel(think=think_of(f'{COUNT}("2+2")'))
    second = ingresses.add(model, FakePlugins(answers={"2+2": PluginOutput(True, ("4",))}))
    events = await second.read(started)
    outputs = [event.data.get("output") for event in events if event.kind == "plugin"]
    assert outputs == [None, "4"]


@pytest.mark.parametrize("keep", [False, True])
async def test_a_cancel_elsewhere_ends_a_call_within_two_polls(
    ingresses: Ingresses, keep: bool
) -> None:
    """No patrol and no event that is written brings word of it."""
    assert 2 * INTERVAL_S <= 0.1
    ingresses.period_s, ingresses.settings = 300, LiveSettings(hold_s=600)
    hanging = HangingPlugins()
    first, second = add(ingresses, COUNT, hanging), add(ingresses, COUNT, FakePlugins())
    started = await first.start(await ingresses.session(), enabled=ENABLED)
    await hanging.has_call.wait()
    assert started.teller is not None
    pen = started.teller.pen
    await until(lambda: not pen.has_work)
    last = await second.cancel(started, keep=keep)
    await until(lambda: hanging.num_running == 0)
    assert last is not None and last.kind == "error", "nothing of the reply was told"
    assert (await ingresses.load(started.uid)).tree == ()


async def test_an_error_after_a_call_with_effects_forbids_a_retry(ingresses: Ingresses) -> None:
    ingress = add(ingresses, DRAW, FakePlugins(answers={"1+1": PluginOutput(True, ("one",))}))

    async def fail(is_reply: bool, num_tokens: int) -> None:
        if is_reply:
            raise OSError("a bug")

    ingress.model.wait = fail
    started = await ingress.start(await ingresses.session(), enabled=ENABLED)
    *_, last = await ingress.read(started)
    assert last.kind == "error"
    assert getattr(started.failure, "should_retry", None) is False


@pytest.mark.parametrize("name", [DRAW, COUNT])
async def test_a_turn_that_failed_has_its_answers(ingresses: Ingresses, name: str) -> None:
    """It is asked for again with its key."""

    async def fail(is_reply: bool, num_tokens: int) -> None:
        if is_reply and num_tokens == 3:
            raise ValueError("a bug")

    ingress, uid = add(ingresses, name, FakePlugins()), await ingresses.session()
    ingress.model.wait = fail
    for _ in range(2):
        started = await ingress.start(uid, idempotency_key="k", enabled=ENABLED)
        *told, end = await ingress.read(started)
        assert end.kind == "error"
        outputs = [event.data["output"] for event in told if "output" in event.data]
        assert outputs == ["late"]
    assert len(ingress.plugins.calls) == 1
    ingress.model.wait = FakeModel().wait
    await ingress.read(await ingress.start(uid, idempotency_key="k", enabled=ENABLED))
    async with Redis.from_url(ingresses.url) as redis:
        left = [key async for key in redis.scan_iter(session_keys(uid, "results:*")[0])]
    assert left == [], "a turn that is stored is not made again"
    await ingress.read(await ingress.start(uid, idempotency_key="another", enabled=ENABLED))
    assert len(ingress.plugins.calls) == 2, "another key is another call"


async def test_what_a_failed_turn_was_answered_goes_with_its_session(ingresses: Ingresses) -> None:
    is_there = asyncio.Event()

    async def hang(is_reply: bool, num_tokens: int) -> None:
        if is_reply:
            is_there.set()
            await asyncio.Event().wait()

    ingress, uid = add(ingresses, COUNT, FakePlugins()), await ingresses.session()
    ingress.model.wait = hang
    await ingress.start(uid, idempotency_key="k", enabled=ENABLED)
    await is_there.wait()
    (pattern,) = session_keys(uid, "results:*")
    async with Redis.from_url(ingresses.url) as redis:
        (kept,) = [key async for key in redis.scan_iter(pattern)]
        assert 0 < await redis.pttl(kept) <= RESULTS_MS
        catalogue = RedisSessionCatalogue(ingresses.url)
        assert await catalogue.delete(uid, OWNER)
        await catalogue.close()
        assert [key async for key in redis.scan_iter(pattern)] == []
