"""One pass of the model within a turn: its tokens up to the deadline, or the reply they spell."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace

from moss_tp.engine.outputs import TokenDelta
from moss_tp.errors import DeadlineExceededError, EngineDeadError
from moss_tp.sampling_params import SamplingParams
from serve_app.chat.generation import Generation
from serve_app.chat.protocols import ChatModel


async def stream_tokens(
    model: ChatModel,
    generation: Generation,
    number: int,
    prompt_ids: Sequence[int],
    params: SamplingParams,
) -> AsyncGenerator[TokenDelta]:
    """Pass `number`, to its honest end: a stream that breaks off is an error, not a short text.

    Raises DeadlineExceededError at the deadline, EngineDeadError for a stream that breaks off.
    """
    request_id = f"{generation.request_id}-{number}"
    stream = model.generate(request_id, prompt_ids, params, generation.session_id)
    reason = None
    try:
        while (delta := await _next_before(generation.deadline, stream)) is not None:
            reason = delta.finish_reason
            yield delta
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()
    if reason not in ("stop", "length"):
        raise EngineDeadError("the engine gave up the request")


async def stream_reply(
    model: ChatModel, generation: Generation, number: int, prompt_ids: Sequence[int], eom_id: int
) -> AsyncGenerator[str]:
    """Pieces of the reply's text, none empty, without the space that follows its marker.

    The deadline ends a reply that has begun as its length does; before that it is an error.
    """
    params = replace(
        generation.params,
        max_tokens=generation.max_length - len(prompt_ids),
        stop_token_ids=(eom_id,),
    )
    has_begun = False
    try:
        async with aclosing(stream_tokens(model, generation, number, prompt_ids, params)) as deltas:
            async for delta in deltas:
                if not delta.text:
                    continue
                text = delta.text if has_begun else delta.text.removeprefix(" ")
                has_begun = True
                if text:
                    yield text
    except DeadlineExceededError:
        if not has_begun:
            raise


async def _next_before(deadline: float, stream: AsyncIterator[TokenDelta]) -> TokenDelta | None:
    """The next delta, None at the end; DeadlineExceededError when it does not come in time."""
    try:
        async with asyncio.timeout(deadline - time.monotonic()) as timer:
            return await anext(stream, None)
    except TimeoutError as error:
        if timer.expired():
            raise DeadlineExceededError("the deadline passed before the reply began") from error
        raise
