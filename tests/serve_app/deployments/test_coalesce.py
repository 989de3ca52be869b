"""Coalescing changes when deltas are sent, never their content."""

import asyncio
import time
from collections.abc import AsyncGenerator

import pytest

from moss_tp.engine.outputs import FinishReason, TokenDelta
from moss_tp.errors import EngineDeadError
from moss_tp.sampling.row import SampledToken
from serve_app.deployments.coalesce import coalesce


def delta(number: int, finish_reason: FinishReason | None = None) -> TokenDelta:
    logprobs = (SampledToken(number, -1.0),)
    return TokenDelta((number,), f"{number} ", finish_reason, 7, number, logprobs)


class Source:
    """Deltas with a pause before each; remembers whether it ended or was closed early."""

    def __init__(self, *pauses_s: float, error: Exception | None = None) -> None:
        self._pauses_s = pauses_s
        self._error = error
        self.is_ended = False
        self.is_closed = False

    async def __call__(self) -> AsyncGenerator[TokenDelta]:
        try:
            for number, pause_s in enumerate(self._pauses_s):
                await asyncio.sleep(pause_s)
                is_last = number + 1 == len(self._pauses_s)
                yield delta(number, "stop" if is_last and self._error is None else None)
            if self._error is not None:
                raise self._error
            self.is_ended = True
        finally:
            self.is_closed = True


async def test_the_first_delta_is_sent_at_once_and_later_ones_are_joined() -> None:
    source = Source(*[0.001] * 100)
    got = [message async for message in coalesce(source(), interval_s=0.05)]
    assert got[0] == delta(0)
    assert len(got) < 20
    assert [token for message in got for token in message.token_ids] == list(range(100))
    logprobs = [token for message in got for token in message.logprobs]
    assert [token.token_id for token in logprobs] == list(range(100))
    assert "".join(message.text for message in got) == "".join(f"{n} " for n in range(100))
    assert [message.finish_reason for message in got] == [None] * (len(got) - 1) + ["stop"]
    assert got[-1].num_cached_tokens == 99
    assert source.is_ended


async def test_logprobs_of_the_prompt_arrive_once() -> None:
    scores = (SampledToken(5, -1.0),)

    async def deltas() -> AsyncGenerator[TokenDelta]:
        for number in range(9):
            first = delta(number)._replace(prompt_logprobs=scores)
            yield first if number == 0 else delta(number)

    got = [message async for message in coalesce(deltas(), interval_s=0.02)]
    assert [message.prompt_logprobs for message in got] == [scores] + [None] * (len(got) - 1)


async def test_a_stalled_source_delays_no_delta() -> None:
    started = time.monotonic()
    messages = coalesce(Source(0, 0, 5)(), interval_s=0.02)
    assert (await anext(messages)).token_ids == (0,)
    assert (await anext(messages)).token_ids == (1,)
    assert time.monotonic() - started < 1
    await messages.aclose()


async def test_slow_tokens_are_not_joined() -> None:
    messages = coalesce(Source(0, 0.05, 0.05)(), interval_s=0.01)
    assert [message.token_ids async for message in messages] == [(0,), (1,), (2,)]


async def test_closing_closes_the_source() -> None:
    source = Source(0, 60)
    messages = coalesce(source())
    await anext(messages)
    await messages.aclose()
    assert source.is_closed
    assert not source.is_ended


async def test_cancelling_closes_the_source() -> None:
    source = Source(60)

    async def consume() -> None:
        async for _ in coalesce(source()):
            pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.is_closed


async def test_an_error_of_the_source_is_raised() -> None:
    source = Source(0, 0, error=EngineDeadError("gone"))
    with pytest.raises(EngineDeadError, match="gone"):
        async for _ in coalesce(source()):
            pass
