"""The sampler's input and output for one row of logits. No torch, no tensors."""

import math
from dataclasses import dataclass

from moss_tp.sampling.token_history import TokenCounts
from moss_tp.sampling_params import SamplingParams


@dataclass(frozen=True, slots=True)
class SamplingRow:
    """How to sample output token number `position` of one request.

    `seed` and `position` alone determine the random number. `counts` is None when no penalty
    needs them. `blocked_ids` (stop ids, below `min_tokens`) cannot be sampled. `eos_id` is the id
    that `length_penalty` acts on, None when no eos ends the reply.
    """

    params: SamplingParams
    seed: int
    position: int
    counts: TokenCounts | None = None
    blocked_ids: tuple[int, ...] = ()
    eos_id: int | None = None

    @property
    def eos_bonus(self) -> float:
        """What `length_penalty` adds to eos's log probability at this position."""
        num_regulated = self.position - self.params.regulation_start
        if self.eos_id is None or num_regulated <= 0:
            return 0.0
        return num_regulated * math.log(self.params.length_penalty)


@dataclass(frozen=True, slots=True)
class SampledToken:
    """One sampled token, with logprobs where the request wants them.

    Logprobs are natural logarithms under the model's own distribution, before penalties, biases,
    temperature and truncation. `top_logprobs` holds `(id, logprob)` pairs in descending order;
    the sampled token is not necessarily among them.
    """

    token_id: int
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()
