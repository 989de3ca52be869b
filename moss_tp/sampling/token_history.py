"""The ids in a request's prompt and output, counted: the input of the penalties.

Updated token by token, since a step has no time to scan whole prompts. No torch.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class TokenCounts(NamedTuple):
    """Distinct `ids (N,)` of the prompt and the output so far, and how often each is in the
    output, `num_output (N,)`."""

    ids: NDArray[np.int64]
    num_output: NDArray[np.int64]


class TokenHistory:
    """The counts of one request. Arrays from `counts` are valid until the next `append`."""

    def __init__(self, prompt_ids: Iterable[int]) -> None:
        self._index = {token_id: i for i, token_id in enumerate(dict.fromkeys(prompt_ids))}
        self._ids = np.fromiter(self._index, np.int64, len(self._index))
        self._num_output = np.zeros(len(self._index), np.int64)
        self._output_ids: list[int] = []

    @property
    def num_output(self) -> int:
        """Tokens of the output so far."""
        return len(self._output_ids)

    def output_since(self, start: int) -> Sequence[int]:
        """The output's ids from number `start` on."""
        return self._output_ids[start:]

    @property
    def counts(self) -> TokenCounts:
        size = len(self._index)
        return TokenCounts(self._ids[:size], self._num_output[:size])

    def append(self, token_id: int) -> None:
        """Counts one more output token."""
        self._output_ids.append(token_id)
        size = len(self._index)
        index = self._index.setdefault(token_id, size)
        if index == len(self._ids):
            self._ids = np.concatenate((self._ids, np.zeros(size + 16, np.int64)))
            self._num_output = np.concatenate((self._num_output, np.zeros(size + 16, np.int64)))
        if index == size:
            self._ids[index] = token_id
        self._num_output[index] += 1

    def counts_after(self, draft_ids: Iterable[int]) -> TokenCounts:
        """The counts if `draft_ids` were appended; appends nothing."""
        size = len(self._index)
        new: dict[int, int] = {}
        num_output = self._num_output[:size].copy()
        for token_id in draft_ids:
            if token_id in self._index:
                num_output[self._index[token_id]] += 1
            else:
                new[token_id] = new.get(token_id, 0) + 1
        ids = np.fromiter(new, np.int64, len(new))
        counts = np.fromiter(new.values(), np.int64, len(new))
        return TokenCounts(
            np.concatenate((self._ids[:size], ids)), np.concatenate((num_output, counts))
        )
