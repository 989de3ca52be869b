"""What goes into the sampler and what comes out, one a row of logits. No torch, no tensors."""

from dataclasses import dataclass

from moss_tp.layers.sampling.token_history import TokenCounts
from moss_tp.sampling_params import SamplingParams


@dataclass(frozen=True)
class SamplingRow:
    """How to sample the output token number `position` of one request.

    `seed` and `position` alone fix the random number. `counts` is None where no penalty asks for
    it; `blocked_ids` (stop ids, below `min_tokens`) cannot be sampled.
    """

    params: SamplingParams
    seed: int
    position: int
    counts: TokenCounts | None = None
    blocked_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class SampledToken:
    """One token, and how probable the model found it where the request asks for logprobs.

    Those are natural logarithms of the model's own distribution, before temperature, penalties
    and whatever else shapes the draw. `top_logprobs` holds ids with theirs, the best first; the
    sampled token need not be among them.
    """

    token_id: int
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()
