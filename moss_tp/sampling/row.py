"""What goes into the sampler and what comes out, one a row of logits. No torch, no tensors."""

import math
from dataclasses import dataclass

from moss_tp.sampling.token_history import TokenCounts
from moss_tp.sampling_params import SamplingParams


@dataclass(frozen=True, slots=True)
class SamplingRow:
    """How to sample the output token number `position` of one request.

    `seed` and `position` alone fix the random number. `counts` is None where no penalty asks for
    it; `blocked_ids` (stop ids, below `min_tokens`) cannot be sampled; `eos_id` is the id that
    `length_penalty` acts on, None where it ends nothing.
    """

    params: SamplingParams
    seed: int
    position: int
    counts: TokenCounts | None = None
    blocked_ids: tuple[int, ...] = ()
    eos_id: int | None = None

    @property
    def eos_bonus(self) -> float:
        """What regulation adds to the logarithm of eos's probability."""
        num_regulated = self.position - self.params.regulation_start
        if self.eos_id is None or num_regulated <= 0:
            return 0.0
        return num_regulated * math.log(self.params.length_penalty)


@dataclass(frozen=True, slots=True)
class SampledToken:
    """One token, and how probable the model found it where the request asks for logprobs.

    Those are natural logarithms of the model's own distribution, before temperature, penalties
    and whatever else shapes the draw. `top_logprobs` holds ids with theirs, the best first; the
    sampled token need not be among them.
    """

    token_id: int
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()
