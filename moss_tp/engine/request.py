"""A request to the engine. Plain values: it travels through deployment handles."""

from collections.abc import Sequence
from dataclasses import dataclass

from moss_tp.sampling_params import SamplingParams

DELTA_INTERVAL_S = 0.04  # readers see text flow


@dataclass(frozen=True)
class EngineRequest:
    """One reply to one prompt.

    Requests of different `salt` share no cached block, except those that lie wholly within the
    first `num_shared_tokens` of the prompt. A smaller `priority` is served earlier; a request
    that waited in the queue for `deadline_s` seconds is dropped. `is_continuation` marks the
    next pass of a turn whose earlier pass was served. `output_ids` are the first tokens of the
    reply, which another engine told before it was lost; the reply goes on after them. Give none
    but those of a reply that was admitted once: a request with `output_ids`, like a next pass,
    goes ahead of every other, and the bound of the queue does not apply to it. `traceparent` says
    to which trace it belongs, and `delta_interval_s` how long new tokens may wait for the next on
    their way to whoever asks (0: not at all), longer beside many others; the engine does not read
    them.
    """

    request_id: str
    prompt_ids: Sequence[int]
    params: SamplingParams
    salt: str = ""
    num_shared_tokens: int = 0
    priority: int = 0
    deadline_s: float | None = None
    is_continuation: bool = False
    output_ids: Sequence[int] = ()
    traceparent: str = ""
    delta_interval_s: float = DELTA_INTERVAL_S
