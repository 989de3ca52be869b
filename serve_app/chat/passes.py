"""Runs one pass of the model within a turn: its deltas, up to the deadline."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from moss_tp.engine.outputs import TokenDelta
from moss_tp.errors import DeadlineExceededError, EngineDeadError
from moss_tp.sampling_params import SamplingParams
from serve_app.chat.protocols import ChatModel
from serve_app.chat.request import Choice
from serve_app.streams import with_timeouts


async def run_pass(
    model: ChatModel,
    choice: Choice,
    pass_number: int,
    prompt_ids: Sequence[int],
    params: SamplingParams,
) -> AsyncGenerator[TokenDelta]:
    """The deltas of pass `pass_number`. Closing it aborts the pass.

    Raises DeadlineExceededError at the deadline, and EngineDeadError if the stream ends without
    a finish reason, since the text may then be incomplete.
    """
    request = choice.engine_request(pass_number, prompt_ids, params)
    stream = model.generate(request, choice.request.session_id)
    reason = None
    async with aclosing(with_timeouts(stream, lambda: choice.time_left_s)) as deltas:
        async for delta in deltas:
            if delta is None:
                raise DeadlineExceededError("the deadline passed before the reply began")
            choice.has_begun.set()
            reason = delta.finish_reason
            yield delta
    if reason not in ("stop", "length"):
        raise EngineDeadError("the engine gave up the request")
