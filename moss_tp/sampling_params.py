"""What one request asks of the sampler. Validated on construction, immutable afterwards."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256

from moss_tp.errors import InvalidRequestError

MAX_LOGPROBS = 20
MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 256
MAX_STOP_TOKEN_IDS = 64
MAX_BIASES = 1024
MAX_N = 128


@dataclass(frozen=True)
class SamplingParams:
    """Sampling settings of one request, in the order in which they act on the logits.

    `repetition_penalty` divides positive and multiplies negative logits of every token already
    in the prompt or the reply (Keskar et al. 2019, as in transformers). `presence_penalty` and
    `frequency_penalty` are OpenAI's: subtracted once, and once for each time, from tokens of the
    reply. `logit_bias` holds pairs of an id and what is added to its logit.

    `temperature` 0 is greedy: the most probable token, whatever the next three say. `top_k` 0 is
    off. `top_p` keeps the smallest set of tokens with that much probability, `min_p` those with
    at least that share of the best one's.

    From reply token number `regulation_start` on, the probability of the model's eos is
    multiplied by `length_penalty`, once more each token (MOSS Vortex): above 1 it makes long
    replies end, below 1 it makes them longer. What top-k, top-p or min-p took away stays away.

    `stop_token_ids` end the reply and are not part of its text; the model's own eos does too
    unless `ignore_eos`. No stop id can be sampled before `min_tokens`. `stop` strings end it as
    soon as its text contains one, in whatever tokens, and are cut off; they count only when they
    end after `min_tokens`. `max_time` in seconds ends it, with reason "length", at the first
    token that comes later than that after the request did.

    `logprobs` asks for the logarithm of each token's probability and for so many of the most
    probable ones (0: of none); they are the model's own, before all of the above. `n` asks for
    independent replies. A `seed` fixes the reply whatever it is batched with.

    Raises InvalidRequestError, naming the field, for a value out of range.
    """

    temperature: float = 0.7
    top_p: float = 0.8
    top_k: int = 40
    min_p: float = 0.0
    repetition_penalty: float = 1.02
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    length_penalty: float = 1.0
    regulation_start: int = 512
    max_tokens: int = 512
    min_tokens: int = 0
    max_time: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    n: int = 1

    def __post_init__(self) -> None:
        for field, is_valid in (*self._check_numbers(), *self._check_limits()):
            if not is_valid:
                raise InvalidRequestError(f"{field} is out of range: {getattr(self, field)!r}")
        if not _is_stop_strings(self.stop):
            raise InvalidRequestError(
                f"stop is at most {MAX_STOP_STRINGS} strings of 1 to {MAX_STOP_LENGTH} characters"
            )
        if not _is_logit_bias(self.logit_bias):
            raise InvalidRequestError(
                f"logit_bias is at most {MAX_BIASES} pairs of an id, each once, "
                "and a number from -100 to 100"
            )

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    @property
    def has_penalties(self) -> bool:
        """Whether the tokens so far change what is sampled next."""
        return (
            self.repetition_penalty != 1
            or self.presence_penalty != 0
            or self.frequency_penalty != 0
        )

    def split(self) -> Iterator["SamplingParams"]:
        """The `n` requests of one choice each, with seeds derived from `seed` if there is one."""
        for choice in range(self.n):
            seed = None if self.seed is None else derive_seed(self.seed, choice, 1)
            yield replace(self, n=1, seed=seed)

    def _check_numbers(self) -> Iterator[tuple[str, bool]]:
        yield "temperature", 0 <= self.temperature <= 10
        yield "top_p", 0 < self.top_p <= 1
        yield "top_k", self.top_k >= 0
        yield "min_p", 0 <= self.min_p <= 1
        yield "repetition_penalty", 0 < self.repetition_penalty <= 10
        yield "presence_penalty", -2 <= self.presence_penalty <= 2
        yield "frequency_penalty", -2 <= self.frequency_penalty <= 2
        yield "length_penalty", 0 < self.length_penalty <= 10
        yield "regulation_start", self.regulation_start >= 0

    def _check_limits(self) -> Iterator[tuple[str, bool]]:
        yield "max_tokens", self.max_tokens >= 1
        yield "min_tokens", 0 <= self.min_tokens <= self.max_tokens
        yield "max_time", self.max_time is None or 0 < self.max_time < math.inf
        yield "seed", self.seed is None or 0 <= self.seed < 2**63
        yield "stop_token_ids", len(self.stop_token_ids) <= MAX_STOP_TOKEN_IDS
        yield "logprobs", self.logprobs is None or 0 <= self.logprobs <= MAX_LOGPROBS
        yield "n", 1 <= self.n <= MAX_N


def derive_seed(seed: int, choice: int, pass_number: int) -> int:
    """The seed with which a pass of a choice draws: 63 bits of a hash of all three numbers.

    The first 8 bytes of SHA-256 over `"{seed}/{choice}/{pass_number}"` in ASCII, big-endian,
    shifted right by one. It is stable across processes and versions, and no two choices or
    passes draw the same numbers, also not those of neighbouring seeds. Choices count from 0,
    passes from 1.
    """
    digest = sha256(f"{seed}/{choice}/{pass_number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _is_stop_strings(stop: tuple[str, ...]) -> bool:
    return (
        not isinstance(stop, str)
        and len(stop) <= MAX_STOP_STRINGS
        and all(1 <= len(text) <= MAX_STOP_LENGTH for text in stop)
    )


def _is_logit_bias(pairs: tuple[tuple[int, float], ...]) -> bool:
    return (
        len(pairs) <= MAX_BIASES
        and len({token_id for token_id, _ in pairs}) == len(pairs)
        and all(-100 <= bias <= 100 for _, bias in pairs)
    )
