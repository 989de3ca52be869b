"""One request inside the engine: its tokens, how many are computed, and how to sample the next.

Plain Python: no torch, no text.
"""

import secrets
from array import array
from collections.abc import Sequence as Ids
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from moss_tp.engine.scheduling.ngram import NgramDrafter
from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling.token_history import TokenHistory
from moss_tp.sampling_params import SamplingParams

FinishReason = Literal["stop", "length", "abort", "error"]
Rank = tuple[bool, float, int]


@dataclass(eq=False)
class Sequence:
    """Tokens `[0, num_computed)` have their K and V in the blocks of `block_table`.

        token_ids:    p p p p p p p p o o o        prompt, then output
                      |-- num_computed --|         the last token is never computed in advance:
                                                   its logits are for the next token

    A preempted sequence loses only its blocks: its output stays, so nothing is emitted twice.

    While the last token is pending, a step is still sampling it, as number r of its tokens, and
    `-(1 + r)` stands in its place. It counts like any other, until `append` brings it.
    `seed` is the request's, or random. `eos_id` is the model's, None if it does not end the
    reply. The BlockManager maintains `block_table`, `block_hashes` (of full blocks, chained) and
    `num_committed_blocks` (those that are cached); the WaitingQueue sets `rank`, `queued_at` and
    `expires_at`.
    """

    request_id: str
    token_ids: list[int]
    params: SamplingParams
    stop_ids: frozenset[int]
    salt: str = ""
    num_shared_tokens: int = 0  # of the prompt; see BlockManager
    is_next_pass: bool = False  # of a turn, an earlier pass of which was served
    eos_id: int | None = None
    num_prompt_tokens: int = field(init=False)
    seed: int = field(init=False)
    num_computed: int = 0
    num_cached_tokens: int = 0
    block_table: "array[int]" = field(default_factory=lambda: array("q"))
    block_hashes: list[bytes] = field(default_factory=list)
    num_committed_blocks: int = 0
    num_preemptions: int = 0
    num_told_tokens: int = 0  # of the output: they came with the request
    drafter: NgramDrafter = field(default_factory=NgramDrafter)
    rank: Rank = (True, 0.0, 0)
    queued_at: float = 0.0
    expires_at: float = inf
    finish_reason: FinishReason | None = None
    is_pending: bool = False  # the last token
    is_ending: bool = False  # it is pending and ends the reply by its length, or see `end_reason`
    end_reason: FinishReason | None = None  # once all tokens but the last are computed

    def __post_init__(self) -> None:
        self.num_prompt_tokens = len(self.token_ids)
        self.seed = secrets.randbits(63) if self.params.seed is None else self.params.seed
        self._history = TokenHistory(self.token_ids) if self.params.has_penalties else None
        self._stop_ids = tuple(sorted(self.stop_ids))
        self._max_num_tokens = self.num_prompt_tokens + self.params.max_tokens
        self._untaken: list[SampledToken] = []
        self._scores: list[SampledToken] = []
        self.has_untaken_scores = self.params.prompt_logprobs is not None

    @property
    def num_unscored(self) -> int:
        """Tokens of the prompt whose logprobs are wanted, and not known yet."""
        if self.params.prompt_logprobs is None:
            return 0
        return self.num_prompt_tokens - 1 - len(self._scores)

    @property
    def max_cached_tokens(self) -> int:
        """Those that may come from the prefix cache: each other's logits are needed."""
        return len(self._scores) if self.num_unscored else self.num_tokens - 1

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def num_uncomputed(self) -> int:
        return len(self.token_ids) - self.num_computed

    def sampling_row(self, drafted: Ids[int] = ()) -> SamplingRow:
        """How to sample the next token, or the one after `drafted` if those come next.

        The random number depends on the position only. Valid until the next `append`.
        """
        position = len(self.token_ids) - self.num_prompt_tokens + len(drafted)
        params, history = self.params, self._history
        counted = tuple(drafted) if history is not None else ()
        blocked_ids = self._stop_ids if position < params.min_tokens else ()
        return SamplingRow(params, self.seed, position, history, counted, blocked_ids, self.eos_id)

    def append(self, token: SampledToken, max_model_len: int) -> None:
        """Appends a sampled token, and sets `finish_reason` if it ends the reply."""
        token_id = token.token_id
        if self.is_pending:
            self.token_ids[-1] = token_id
            is_full = self.is_ending
            self.is_pending = self.is_ending = False
        else:
            self.token_ids.append(token_id)
            is_full = self._is_full(max_model_len)
        self._untaken.append(token)
        if self._history is not None:
            self._history.append(token_id)
        if token_id in self.stop_ids:
            self.finish_reason = "stop"
        elif is_full:
            self.finish_reason = "length"

    def expect(self, row: int, max_model_len: int) -> None:
        """Appends a pending token: number `row` of those that the running step samples."""
        self.token_ids.append(-1 - row)
        self.is_pending = True
        self.is_ending = self._is_full(max_model_len)

    def withdraw(self) -> None:
        """Takes a pending token back."""
        del self.token_ids[-1]
        self.is_pending = self.is_ending = False

    def unscored(self, start: int, stop: int) -> range:
        """Those of the positions `start .. stop - 1` after which a token of the prompt comes whose
        logprobs are wanted, and not known yet."""
        if self.params.prompt_logprobs is None:
            return range(0)
        return range(max(start, len(self._scores)), min(stop, self.num_prompt_tokens - 1))

    def note_scores(self, tokens: Ids[SampledToken]) -> None:
        """Logprobs of the next tokens of the prompt."""
        count = self.params.prompt_logprobs or 0
        self._scores += [
            SampledToken(token.token_id, token.logprob, token.top_logprobs[:count])
            for token in tokens
        ]

    def take_scores(self) -> tuple[SampledToken, ...]:
        """Logprobs of the prompt's tokens but the first, all of which are known. Once."""
        self.has_untaken_scores = False
        return tuple(self._scores)

    def _is_full(self, max_model_len: int) -> bool:
        num_tokens = len(self.token_ids)
        return num_tokens >= self._max_num_tokens or num_tokens >= max_model_len

    def take_new(self) -> list[SampledToken]:
        """The tokens appended since the last call."""
        taken, self._untaken = self._untaken, []
        return taken
