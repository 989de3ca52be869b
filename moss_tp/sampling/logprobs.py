"""How probable the model itself found a token, for the rows that ask: `SampledToken`'s numbers."""

from collections.abc import Sequence

from torch import Tensor

from moss_tp.sampling.draw import take
from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling.top import top
from moss_tp.sampling_params import MAX_LOGPROBS

# More than are wanted, so that equals at the cut are told apart by their ids as well.
NUM_BEST = 3 * MAX_LOGPROBS


class Logprobs:
    """Those of `logits (R, vocab_size)` as they are now; later changes to them do not matter."""

    def __init__(self, logits: Tensor, rows: Sequence[SamplingRow]) -> None:
        self._rows = rows
        self._asking = [i for i, row in enumerate(rows) if row.params.logprobs is not None]
        self._values = take(logits, self._asking).log_softmax(dim=-1) if self._asking else None

    def attach(self, token_ids: Sequence[int]) -> list[SampledToken]:
        """The sampled ids, one a row, as tokens."""
        tokens = [SampledToken(token_id) for token_id in token_ids]
        if self._values is None:
            return tokens
        best, best_ids = top(self._values, NUM_BEST)
        ranking = zip(self._asking, self._values, best_ids.tolist(), best.tolist(), strict=True)
        for i, values, ids, logprobs in ranking:
            pairs = tuple(zip(ids, logprobs, strict=True))[: self._rows[i].params.logprobs]
            tokens[i] = SampledToken(token_ids[i], values[token_ids[i]].item(), pairs)
        return tokens
