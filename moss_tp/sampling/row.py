"""The sampler's input and output for one row of logits. No torch, no tensors."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from moss_tp.sampling.token_history import TokenCounts, TokenHistory
from moss_tp.sampling_params import SamplingParams


@dataclass(slots=True)  # not frozen: each step makes one a row, and that takes five times as long
class SamplingRow:
    """How to sample output token number `position` of one request.

    `seed` and `position` alone determine the random number. `history` is None when no penalty
    needs it; `drafted` ids come between it and this token. It may be one token short of that: one
    that the step before is still sampling on the device. `blocked_ids` (stop ids, below
    `min_tokens`) cannot be sampled. `eos_id` is the id that `length_penalty` acts on, None when no
    eos ends the reply.
    """

    params: SamplingParams
    seed: int
    position: int
    history: TokenHistory | None = None
    drafted: tuple[int, ...] = ()
    blocked_ids: tuple[int, ...] = ()
    eos_id: int | None = None

    @property
    def counts(self) -> TokenCounts | None:
        """What comes before this token, counted. Valid until the history's next `append`."""
        if self.history is None:
            return None
        return self.history.counts_after(self.drafted) if self.drafted else self.history.counts

    @property
    def eos_bonus(self) -> float:
        """What `length_penalty` adds to eos's log probability at this position."""
        num_regulated = self.position - self.params.regulation_start
        if self.eos_id is None or num_regulated <= 0:
            return 0.0
        return num_regulated * math.log(self.params.length_penalty)


class SampledToken(NamedTuple):
    """One sampled token, with logprobs where the request wants them.

    Logprobs are natural logarithms under the model's own distribution, before penalties, biases,
    temperature and truncation. `top_logprobs` holds `(id, logprob)` pairs in descending order;
    the sampled token is not necessarily among them.
    """

    token_id: int
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()
