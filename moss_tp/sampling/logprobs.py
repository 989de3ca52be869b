"""Logprobs of the sampled and of the most probable tokens, for the rows that request them."""

from collections.abc import Sequence

from torch import Tensor

from moss_tp.sampling.draw import select_rows
from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling.topk import topk
from moss_tp.sampling_params import MAX_LOGPROBS


class Logprobs:
    """Logprobs of `logits (R, vocab_size)` as they are now: later changes do not matter."""

    def __init__(self, logits: Tensor, rows: Sequence[SamplingRow]) -> None:
        self._rows = rows
        self._indices = [i for i, row in enumerate(rows) if row.params.logprobs is not None]
        self._values: Tensor | None = None
        if self._indices:
            own = select_rows(logits, self._indices)
            self._values = own.log_softmax(dim=-1)
            self._best_ids = topk(own, MAX_LOGPROBS)[1]  # logprobs are rounded: more are equal

    def attach(self, token_ids: Sequence[int]) -> list[SampledToken]:
        """The sampled ids, one a row, with their logprobs."""
        tokens = [SampledToken(token_id) for token_id in token_ids]
        if self._values is None:
            return tokens
        best = self._values.gather(1, self._best_ids)
        lists = self._best_ids.tolist(), best.tolist()
        ranked = zip(self._indices, self._values, *lists, strict=True)
        for i, values, ids, logprobs in ranked:
            pairs = tuple(zip(ids, logprobs, strict=True))[: self._rows[i].params.logprobs]
            tokens[i] = SampledToken(token_ids[i], values[token_ids[i]].item(), pairs)
        return tokens
