"""What one request asks of the sampler. Validated on construction, immutable afterwards."""

import math
from dataclasses import dataclass

from moss_tp.errors import InvalidRequestError


@dataclass(frozen=True)
class SamplingParams:
    """Sampling settings of one request.

    `temperature` 0 is greedy. `top_k` 0 is off. `repetition_penalty` divides positive and
    multiplies negative logits of every token already in the prompt or the reply (Keskar et al.
    2019, as in transformers). `stop_token_ids` end the reply and are not part of its text;
    the model's own eos does too unless `ignore_eos`. No stop id can be sampled before
    `min_tokens`. A `seed` fixes the reply whatever it is batched with.

    Raises InvalidRequestError, naming the field, for a value out of range.
    """

    temperature: float = 0.7
    top_p: float = 0.8
    top_k: int = 40
    repetition_penalty: float = 1.02
    max_tokens: int = 512
    min_tokens: int = 0
    seed: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        checks = {
            "temperature": math.isfinite(self.temperature) and 0 <= self.temperature <= 10,
            "top_p": math.isfinite(self.top_p) and 0 < self.top_p <= 1,
            "top_k": self.top_k >= 0,
            "repetition_penalty": math.isfinite(self.repetition_penalty)
            and 0 < self.repetition_penalty <= 10,
            "max_tokens": self.max_tokens >= 1,
            "min_tokens": 0 <= self.min_tokens <= self.max_tokens,
            "seed": self.seed is None or 0 <= self.seed < 2**63,
        }
        for field, is_valid in checks.items():
            if not is_valid:
                raise InvalidRequestError(f"{field} is out of range: {getattr(self, field)!r}")

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    @property
    def has_penalties(self) -> bool:
        """Whether the tokens so far change what is sampled next."""
        return self.repetition_penalty != 1
