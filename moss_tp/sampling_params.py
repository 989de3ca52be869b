"""The sampling parameters of a request: validated on construction, immutable afterwards."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any

from moss_tp import checks
from moss_tp.errors import InvalidRequestError

MAX_LOGPROBS = 20
MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 256
MAX_STOP_TOKEN_IDS = 64
MAX_BIASES = 1024
MAX_N = 128


@dataclass(frozen=True)
class SamplingParams:
    """Sampling parameters of one request, in the order in which they act on the logits.

    `repetition_penalty` divides positive and multiplies negative logits of every token in the
    prompt or the reply so far (Keskar et al. 2019, as in transformers). `presence_penalty` and
    `frequency_penalty` are OpenAI's: they are subtracted from tokens of the reply, once, and once
    per occurrence. `logit_bias` holds pairs of a token id and what to add to its logit.

    `temperature` 0 is greedy: it takes the most probable token and ignores the next three.
    `top_k` 0 is off. `top_p` keeps the smallest set of tokens whose probability adds up to it.
    `min_p` keeps tokens with at least that fraction of the best token's probability.

    After `regulation_start` reply tokens, the probability of eos is multiplied by
    `length_penalty`, once more for each further token (MOSS Vortex): above 1 it ends long
    replies, below 1 it makes them longer. A token that top-k, top-p or min-p removed stays
    removed.

    `stop_token_ids` end the reply and are not part of its text; so does the model's eos unless
    `ignore_eos`. No stop id can be sampled before `min_tokens`. A `stop` string ends the reply as
    soon as the text contains it, and is cut off; it is ignored when it ends within `min_tokens`.
    `max_time`, in seconds since the request arrived, ends the reply at the first token after it,
    with finish reason "length".

    `logprobs` returns the log probability of each token and of that many most probable tokens (0:
    none), under the model's own distribution, before all of the above. `prompt_logprobs` returns
    the same for each token of the prompt but the first; with it, and only then, `max_tokens` may be
    0. `n` is the number of independent replies. A `seed` makes the reply reproducible, whatever it
    is batched with.

    `logit_bias` may be given as a mapping, `stop` as one string or None, collections as lists,
    sets or arrays, and numbers as numpy's: the fields hold tuples and plain numbers.

    Raises InvalidRequestError, naming the field, for a value of another type or out of range.
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
    prompt_logprobs: int | None = None

    def __post_init__(self) -> None:
        for field, read in _READERS.items():
            object.__setattr__(self, field, read(field, getattr(self, field)))
        for field, is_valid in (*self._check_numbers(), *self._check_limits()):
            if not is_valid:
                value = checks.shown(getattr(self, field))
                raise InvalidRequestError(f"{field} is out of range: {value}")

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    @property
    def has_penalties(self) -> bool:
        """Whether any penalty is on, so that sampling needs the counts of the tokens so far."""
        return (
            self.repetition_penalty != 1
            or self.presence_penalty != 0
            or self.frequency_penalty != 0
        )

    def split(self) -> Iterator["SamplingParams"]:
        """`n` requests of one reply each. The first keeps `seed`, the others derive theirs; it
        alone asks for `prompt_logprobs`, unless there is nothing else to ask for."""
        yield replace(self, n=1)
        prompt_logprobs = self.prompt_logprobs if self.max_tokens == 0 else None
        for index in range(1, self.n):
            seed = None if self.seed is None else derive_seed(self.seed, index)
            yield replace(self, n=1, seed=seed, prompt_logprobs=prompt_logprobs)

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
        yield "max_tokens", self.max_tokens >= (1 if self.prompt_logprobs is None else 0)
        yield "min_tokens", 0 <= self.min_tokens <= self.max_tokens
        yield "max_time", self.max_time is None or self.max_time > 0
        yield "seed", self.seed is None or 0 <= self.seed < 2**63
        for name, count in (("logprobs", self.logprobs), ("prompt_logprobs", self.prompt_logprobs)):
            yield name, count is None or 0 <= count <= MAX_LOGPROBS
        yield "n", 1 <= self.n <= MAX_N


def derive_seed(seed: int, *path: int) -> int:
    """A seed for one of several draws under `seed`, which `path` identifies (choice, pass, …).

    It is a hash, so that no two seeds share the draws of different paths, as sums would.
    """
    data = ",".join(map(str, (seed, *path))).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") >> 1


def _stop_strings(field: str, value: object) -> tuple[str, ...]:
    stops = (value,) if isinstance(value, str) else _members(field, value, MAX_STOP_STRINGS)
    if not all(isinstance(stop, str) and 1 <= len(stop) <= MAX_STOP_LENGTH for stop in stops):
        raise InvalidRequestError(
            f"{field} is not a list of strings of 1 to {MAX_STOP_LENGTH} characters: "
            f"{checks.shown(value)}"
        )
    return tuple(str(checks.text(field, stop)) for stop in stops)


def _ids(field: str, value: object) -> tuple[int, ...]:
    members = _members(field, value, MAX_STOP_TOKEN_IDS)
    return tuple(checks.integer(field, member) for member in members)


def _biases(field: str, value: object) -> tuple[tuple[int, float], ...]:
    given = tuple(value.items()) if isinstance(value, Mapping) else value
    pairs = tuple(_bias(field, pair) for pair in _members(field, given, MAX_BIASES))
    if len({token_id for token_id, _ in pairs}) != len(pairs):
        raise InvalidRequestError(f"{field} is wrong: it has an id twice")
    return pairs


def _bias(field: str, pair: object) -> tuple[int, float]:
    members = checks.items(field, pair, 2)
    if isinstance(pair, Set) or len(members) != 2:
        raise InvalidRequestError(f"{field} is not pairs of an id and a bias: {checks.shown(pair)}")
    bias = checks.number(field, members[1])
    if not -100 <= bias <= 100:
        raise InvalidRequestError(f"{field} is out of range: {bias}")
    return checks.integer(field, members[0]), bias


def _members(field: str, value: object, limit: int) -> tuple[Any, ...]:
    return () if value is None else checks.items(field, value, limit)


_READERS: dict[str, Callable[[str, object], object]] = {
    "temperature": checks.number,
    "top_p": checks.number,
    "top_k": checks.integer,
    "min_p": checks.number,
    "repetition_penalty": checks.number,
    "presence_penalty": checks.number,
    "frequency_penalty": checks.number,
    "logit_bias": _biases,
    "length_penalty": checks.number,
    "regulation_start": checks.integer,
    "max_tokens": checks.integer,
    "min_tokens": checks.integer,
    "max_time": checks.optional(checks.number),
    "seed": checks.optional(checks.integer),
    "stop": _stop_strings,
    "stop_token_ids": _ids,
    "ignore_eos": checks.boolean,
    "logprobs": checks.optional(checks.integer),
    "n": checks.integer,
    "prompt_logprobs": checks.optional(checks.integer),
}
