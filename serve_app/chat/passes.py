"""Runs one pass of the model within a turn: its deltas, up to the deadline."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from moss_tp.engine.outputs import TokenDelta
from moss_tp.errors import DeadlineExceededError, EngineDeadError
from moss_tp.sampling_params import SamplingParams
from serve_app.chat.protocols import ChatModel
from serve_app.chat.request import Choice
from serve_app.streams import with_timeouts

# Between deltas, each of which is a chance to stop, too.
_STOP_CHECK_S = 0.2


class StoppedError(Exception):
    """The client stopped the reply and keeps what was told; no client sees this error."""


async def run_pass(
    model: ChatModel,
    choice: Choice,
    pass_number: int,
    prompt_ids: Sequence[int],
    params: SamplingParams,
    output_ids: Sequence[int] = (),
    delta_interval_s: float | None = None,
) -> AsyncGenerator[TokenDelta]:
    """The deltas of pass `pass_number` after `output_ids`. Closing it aborts the pass.

    New tokens may wait for the next ones for `delta_interval_s`; None: as those of the reply may.

    Raises DeadlineExceededError at the deadline, StoppedError soon after the request's `stop` is
    set, and EngineDeadError if the stream ends without a finish reason, since the text may then
    be incomplete.
    """
    request = choice.engine_request(pass_number, prompt_ids, params, output_ids)
    if delta_interval_s is not None:
        request = replace(request, delta_interval_s=delta_interval_s)
    stream = model.generate(request, choice.request.chat)
    reason = None
    async with aclosing(with_timeouts(stream, lambda: _patience_s(choice))) as deltas:
        async for delta in deltas:
            if choice.is_stopped:
                raise StoppedError
            if delta is None and choice.time_left_s > 0:
                continue
            if delta is None:
                raise DeadlineExceededError("the deadline passed before the reply began")
            choice.has_begun.set()
            choice.request.meter.num_tokens += len(delta.token_ids)
            reason = delta.finish_reason
            yield delta
    if reason not in ("stop", "length"):
        raise EngineDeadError("the engine gave up the request")


def _patience_s(choice: Choice) -> float:
    """How long to wait for a delta before looking at the clock, and for a stop."""
    left_s = choice.time_left_s
    return left_s if choice.request.stop is None else min(left_s, _STOP_CHECK_S)
