"""Coalescing changes when deltas are sent, never their content."""

import asyncio
import time
from contextlib import ExitStack

from moss_tp.engine.outputs import FinishReason, TokenDelta
from moss_tp.sampling.row import SampledToken
from serve_app.deployments.coalescer import MAX_SHARED_S, Coalescer, SharedWay


def delta(number: int, finish_reason: FinishReason | None = None) -> TokenDelta:
    logprobs = (SampledToken(number, -1.0),)
    return TokenDelta((number,), f"{number} ", finish_reason, 7, number, logprobs)


class Sent(list[TokenDelta]):
    """What was sent, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def __call__(self, delta: TokenDelta) -> None:
        self.append(delta)
        self.times.append(time.monotonic())

    @property
    def ids(self) -> list[tuple[int, ...]]:
        return [each.token_ids for each in self]


async def test_the_first_delta_is_sent_at_once_and_later_ones_are_joined() -> None:
    sent = Sent()
    coalescer = Coalescer(sent, lambda: 0.05)
    for number in range(100):
        coalescer.add(delta(number, "stop" if number == 99 else None))
        await asyncio.sleep(0.001)
    assert sent[0] == delta(0)
    assert len(sent) < 20
    assert [token for each in sent for token in each.token_ids] == list(range(100))
    logprobs = [token for each in sent for token in each.logprobs]
    assert [token.token_id for token in logprobs] == list(range(100))
    assert "".join(each.text for each in sent) == "".join(f"{n} " for n in range(100))
    assert [each.finish_reason for each in sent] == [None] * (len(sent) - 1) + ["stop"]
    assert sent[-1].num_cached_tokens == 99


async def test_the_last_delta_waits_for_nothing() -> None:
    sent = Sent()
    coalescer = Coalescer(sent, lambda: 60)
    for number in range(5):
        coalescer.add(delta(number, "length" if number == 4 else None))
    assert sent.ids == [(0,), (1, 2, 3, 4)]


async def test_logprobs_of_the_prompt_arrive_once() -> None:
    scores = (SampledToken(5, -1.0),)
    sent = Sent()
    coalescer = Coalescer(sent, lambda: 60)
    coalescer.add(delta(0)._replace(prompt_logprobs=scores))
    for number in range(1, 9):
        coalescer.add(delta(number))
    coalescer.flush()
    assert [each.prompt_logprobs for each in sent] == [scores, None]


async def test_no_delta_waits_for_the_next_longer_than_the_interval() -> None:
    sent = Sent()
    coalescer = Coalescer(sent, lambda: 0.05)
    coalescer.add(delta(0))
    coalescer.add(delta(1))
    assert sent.ids == [(0,)]
    await asyncio.sleep(0.5)
    assert sent.ids == [(0,), (1,)]
    assert 0.04 < sent.times[1] - sent.times[0] < 0.4


async def test_slow_tokens_are_not_joined() -> None:
    sent = Sent()
    coalescer = Coalescer(sent, lambda: 0.01)
    for number in range(3):
        coalescer.add(delta(number))
        await asyncio.sleep(0.03)
    assert sent.ids == [(0,), (1,), (2,)]


async def test_what_is_left_can_be_sent_once() -> None:
    sent = Sent()
    coalescer = Coalescer(sent, lambda: 60)
    coalescer.add(delta(0))
    coalescer.add(delta(1))
    coalescer.flush()
    coalescer.flush()
    assert sent.ids == [(0,), (1,)]


def test_streams_share_the_way() -> None:
    way = SharedWay()
    with ExitStack() as streams:
        told = []
        for _ in range(100):
            streams.enter_context(way.stream())
            told.append(way.interval_s(0.04))
        assert told[:10] == [0.04] * 10  # alone, each as it wants
        assert told[31] == 0.128
        assert told[-1] == MAX_SHARED_S
        assert way.interval_s(0.3) == 0.3
    assert way.interval_s(0.04) == 0.04


async def test_the_interval_is_that_of_now() -> None:
    sent, interval_s = Sent(), [60.0]
    coalescer = Coalescer(sent, lambda: interval_s[0])
    coalescer.add(delta(0))
    interval_s[0] = 0.0
    coalescer.add(delta(1))
    coalescer.flush()
    coalescer.add(delta(2))
    assert sent.ids == [(0,), (1,), (2,)]
