"""What a turn has used is charged to its key once, and counted once, whoever ends it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from moss_tp.dialogue import NO_RESULTS, Segment, encode_opening, encode_segment
from serve_app.access import limit_scripts
from serve_app.access.gate import Admission, Ticket
from serve_app.access.limiter import Limiter
from serve_app.access.principal import Limits
from serve_app.errors import StoreUnavailableError
from serve_app.http.drain import Drain
from serve_app.live.service import Started
from serve_app.observe.turns import TurnMetrics
from serve_app.sessions.redis_catalogue import RedisSessionCatalogue
from serve_app.sessions.session import new_token
from tests.serve_app.live.halting import FreezingStore
from tests.serve_app.live.ingresses import OWNER, Ingress, Ingresses, begun, stored
from tests.serve_app.live.test_fencing import REPLY, hanging_model, slow_model
from tests.support.chat_fakes import CharCodec, FakeModel
from tests.support.waiting import PATIENCE_S, until

PER_MIN = 1_000_000
LIMITS = Limits(tokens_per_min=PER_MIN, running_turns=2)
CODEC = CharCodec()
NUM_THOUGHTS = len(CODEC.spell(FakeModel().think("")))
RESULTS = encode_segment(CODEC, Segment("results", NO_RESULTS))
# What the second pass is charged for before its reply: thoughts, and the Results in its prompt.
NUM_BEFORE = NUM_THOUGHTS + len(RESULTS) + len(encode_opening(CODEC, "moss"))
NUM_REPLY = len(CODEC.spell(REPLY))


@dataclass
class Till:
    """The limits of one key, by a clock that stands still, with a limiter for each ingress."""

    ingresses: Ingresses
    key_id: str
    limiters: list[Limiter]

    def limiter(self) -> Limiter:
        self.limiters.append(Limiter(self.ingresses.url, now_ms=lambda: 1_000_000))
        return self.limiters[-1]

    def add(self, model: FakeModel, **rest: Any) -> Ingress:
        return self.ingresses.add(model, readmit=self.limiter().resume, **rest)

    async def start(self, ingress: Ingress, **changes: Any) -> Started:
        uid, limiter = await self.ingresses.session(), self.limiter()
        request = ingress.request(uid, **changes)
        return await ingress.live.start(
            request, lambda num: limiter.admit(self.key_id, LIMITS, num)
        )

    async def charged(self) -> tuple[int, int]:
        """Tokens that were taken, and turns that are not settled."""
        buckets, turns = limit_scripts.keys_of(self.key_id)

        async def read(redis: Any) -> tuple[int, int]:
            left = await redis.hget(buckets, "tokens")
            return PER_MIN - int(float(left or PER_MIN)), await redis.zcard(turns)

        return await self.limiters[0]._lane.run(read, float("inf"))

    async def is_settled(self, num_generated: int, ingress: Ingress) -> None:
        """Returns when the turn is charged for, with so many tokens besides its prompt."""
        expected = len(ingress.model.requests[0].prompt_ids) + num_generated
        until = time.monotonic() + PATIENCE_S / 3
        while (charged := await self.charged()) != (expected, 0) and time.monotonic() < until:
            await asyncio.sleep(0.05)
        assert charged == (expected, 0)


@pytest.fixture
async def till(ingresses: Ingresses) -> AsyncIterator[Till]:
    made = Till(ingresses, new_token(), [])
    yield made
    await asyncio.gather(*(each.live.close() for each in ingresses.all))
    await asyncio.gather(*(limiter.close() for limiter in made.limiters))


async def test_a_turn_that_is_done(till: Till) -> None:
    ingress = till.add(slow_model(0))
    await ingress.read(await till.start(ingress))
    await till.is_settled(NUM_BEFORE + NUM_REPLY, ingress)


@pytest.mark.parametrize("keep", [False, True])
async def test_a_turn_that_is_cancelled(till: Till, keep: bool) -> None:
    ingress = till.add(hanging_model(5))
    started = await till.start(ingress)
    await stored(started, 5)
    await ingress.cancel(started, keep=keep)
    await till.is_settled(NUM_BEFORE + 5, ingress)


async def test_thoughts_that_nobody_was_told_are_charged(till: Till) -> None:
    async def hang(is_reply: bool, num_tokens: int) -> None:
        if num_tokens == 7:
            await asyncio.Event().wait()

    ingress = till.add(FakeModel(wait=hang))
    started = await till.start(ingress)
    await begun(ingress)
    await asyncio.sleep(0.1)
    await ingress.cancel(started)
    await till.is_settled(7, ingress)


async def test_a_turn_that_fails(till: Till) -> None:
    async def fail(is_reply: bool, num_tokens: int) -> None:
        if is_reply and num_tokens == 3:
            raise ValueError("a bug")

    ingress = till.add(FakeModel(wait=fail))
    assert (await ingress.read(await till.start(ingress)))[-1].kind == "error"
    await till.is_settled(NUM_BEFORE + 3, ingress)


async def test_a_turn_whose_ingress_died(till: Till) -> None:
    first = till.add(hanging_model(5))
    started = await till.start(first)
    await stored(started, 5)
    await first.die()
    assert (await till.charged())[1] == 1, "it is nobody's to settle"
    second = till.add(slow_model(0))
    await second.read(started)
    await till.is_settled(NUM_BEFORE + NUM_REPLY, first)


async def test_a_turn_that_is_handed_over(till: Till) -> None:
    drain = Drain()
    first, second = till.add(hanging_model(5), stop=drain), till.add(slow_model(0))
    await second.is_known()
    started = await till.start(first)
    await stored(started, 5)
    await drain.finish(10)
    await second.read(started)
    await till.is_settled(NUM_BEFORE + NUM_REPLY, first)


async def test_a_frozen_ingress_counts_all_of_a_turn_that_ended_elsewhere(till: Till) -> None:
    """It may be the first to settle: whoever ended the turn is about to."""
    store = FreezingStore(till.ingresses.url, till.ingresses.settings)
    first, limiter = till.add(hanging_model(9), store=store), till.limiter()

    @asynccontextmanager
    async def resume_unsettled(ticket: Ticket) -> AsyncIterator[Admission]:
        async with limiter.resume(ticket) as admission:
            yield admission
            admission.is_left = True  # it dies before it settles

    second = till.ingresses.add(slow_model(0), readmit=resume_unsettled)
    started = await till.start(first)
    await stored(started, 9)
    store.freeze()
    await second.read(started)
    store.thaw()
    await till.is_settled(NUM_BEFORE + NUM_REPLY, first)


async def test_a_turn_that_is_given_up(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.live.redis.MAX_TAKE_UPS", 0)
    first = till.add(hanging_model(5))
    started = await till.start(first)
    await stored(started, 5)
    await first.die()
    assert (await till.add(slow_model(0)).read(started))[-1].kind == "error"
    await till.is_settled(NUM_THOUGHTS + 5, first)


async def test_a_turn_whose_session_is_deleted(till: Till) -> None:
    ingress = till.add(hanging_model(5))
    started = await till.start(ingress)
    await stored(started, 5)
    catalogue = RedisSessionCatalogue(till.ingresses.url)
    assert await catalogue.delete(started.uid, OWNER)
    await catalogue.close()
    await until(lambda: ingress.model.num_running == 0)
    await till.is_settled(NUM_BEFORE + 5, ingress)


async def test_a_start_that_the_store_took_without_saying_so(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingress = till.add(slow_model(0))
    start = ingress.store.start

    async def start_silently(*args: Any) -> None:
        await start(*args)
        raise StoreUnavailableError("it does not answer")

    monkeypatch.setattr(ingress.store, "start", start_silently)
    with pytest.raises(StoreUnavailableError):
        await till.start(ingress)
    await begun(ingress)
    await till.is_settled(NUM_BEFORE + NUM_REPLY, ingress)


async def test_an_end_that_the_store_took_without_saying_so(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingress = till.add(slow_model(0))
    end = ingress.store.end

    async def end_silently(*args: Any) -> None:
        await end(*args)
        raise StoreUnavailableError("it does not answer")

    monkeypatch.setattr(ingress.store, "end", end_silently)
    await ingress.read(await till.start(ingress))
    await till.is_settled(NUM_BEFORE + NUM_REPLY, ingress)


def num_counted(metrics: TurnMetrics) -> dict[str, float]:
    names = "vllm:request_success_total", "vllm:request_generation_tokens_count"
    samples = [s for family in metrics.registry.collect() for s in family.samples]
    return {name: sum(s.value for s in samples if s.name == name) for name in names}


async def test_a_turn_whose_commit_fails_counts_where_it_is_stored(
    ingresses: Ingresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*args: Any) -> None:
        raise StoreUnavailableError("the store is away")

    counts = [TurnMetrics("moss", 4096), TurnMetrics("moss", 4096)]
    first = ingresses.add(watch=counts[0].watch)
    monkeypatch.setattr(first.sessions, "commit", fail)
    monkeypatch.setattr(first.store, "take_up", fail)
    started = await first.start(await ingresses.session())
    second = ingresses.add(watch=counts[1].watch)
    assert (await second.read(started))[-1].kind == "done"
    none = dict.fromkeys(num_counted(counts[0]), 0)
    assert num_counted(counts[0]) == none
    assert num_counted(counts[1]) == dict.fromkeys(none, 1)
