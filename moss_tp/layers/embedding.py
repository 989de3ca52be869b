"""Token embedding and LM head, both split by vocabulary.

A vocabulary that the ranks do not divide is padded with rows of zeros on the last ranks. Their
logits are cut off, so a padding id is never sampled.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moss_tp.kernels.base import DenseWeight, Linear, MakeLinear
from moss_tp.kernels.quantized import rounded_to_8_bits
from moss_tp.layers.linear_layers import LinearLayers
from moss_tp.layers.parallel_weight import release
from moss_tp.native.huge_pages import lazy_zeros
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.quant_config import LM_HEAD
from moss_tp.weights.shard import Shard


def vocab_part(vocab_size: int, group: TPGroup, unit: int = 1) -> tuple[int, int, int]:
    """This rank's `(num_rows, start, stop)`: its rows, padding included, a multiple of `unit`, and
    its ids."""
    num_rows = -(-vocab_size // (group.size * unit)) * unit
    start = min(group.rank * num_rows, vocab_size)
    return num_rows, start, min(start + num_rows, vocab_size)


class VocabParallelEmbedding(nn.Module):
    """`token_ids (T,)`, int32 or int64, `-> (T, hidden)`. One all-reduce.

    A row of zeros on either side of this rank's rows stands for the ids of other ranks, so that a
    sum of the ranks' rows takes three kernels to prepare and adds nothing but zeros.
    """

    def __init__(self, vocab_size: int, hidden: int, group: TPGroup, dtype: torch.dtype) -> None:
        super().__init__()
        self._group = group
        num_rows, self._start, stop = vocab_part(vocab_size, group)
        self._last = num_rows + 1
        rows = lazy_zeros((num_rows + 2, hidden), dtype, group.device)
        self.weight = nn.Parameter(rows[1:-1], requires_grad=False)
        self._bordered: Tensor | None = rows
        span = (self._start, stop)
        self.shards: Mapping[str, Shard] = {"weight": Shard((vocab_size, hidden), 0, (span,))}

    def forward(self, token_ids: Tensor) -> Tensor:
        if self._group.size == 1:
            return F.embedding(token_ids, self.weight)
        if self._bordered is None:
            return self._group.all_reduce(self._masked(token_ids - self._start))
        rows = (token_ids - (self._start - 1)).clamp_(0, self._last)
        return self._group.all_reduce(F.embedding(rows, self._bordered))

    def take_rows(self, rows: Tensor) -> None:
        """Reads this rank's `rows` where they are: in a mapped file, say, without a copy. Raises
        ValueError for those of another rank or model."""
        if rows.shape != self.weight.shape or rows.dtype != self.weight.dtype:
            raise ValueError(f"embedding rows {tuple(rows.shape)} in {rows.dtype}")
        self.weight = nn.Parameter(rows, requires_grad=False)
        self._bordered = None

    def _masked(self, rows: Tensor) -> Tensor:
        """The same values where there is no border of zeros."""
        last = len(self.weight) - 1
        found = F.embedding(rows.clamp(0, last), self.weight)
        return found.masked_fill_(((rows < 0) | (rows > last))[:, None], 0)


class ParallelLMHead:
    """`x (R, hidden) -> logits (R, vocab_size)` on rank 0, None elsewhere.

    One gather, none when R is 0. `weight` are this rank's parameters, which a model has under their
    published name. Call `pack` before the first use.
    """

    def __init__(self, layers: LinearLayers) -> None:
        config, self._group = layers.config, layers.group
        self._is_root = self._group.rank == 0
        self._vocab_size = config.vocab_size
        form = config.format_of(LM_HEAD)
        num_rows, *span = vocab_part(
            config.vocab_size, self._group, 1 if form is None else form.per_word
        )
        shard = Shard((config.vocab_size, config.hidden_size), 0, ((span[0], span[1]),))
        self.weight = layers.make(LM_HEAD, shard, num_rows)
        self._linear: Linear | None = None

    def pack(self, make_linear: MakeLinear, bits: int | None = None) -> None:
        """Hands the loaded weights over to the kernel that multiplies by them; first rounds those
        that are dense to `bits`, 8 or None."""
        weight = self.weight.kernel_weight()
        if bits is not None and isinstance(weight, DenseWeight):
            weight = rounded_to_8_bits(weight)
        self._linear = make_linear(weight, False)
        release(self.weight)

    @property
    def linear(self) -> Linear:
        """What multiplies by the packed weight. Raises RuntimeError before `pack`."""
        if self._linear is None:
            raise RuntimeError("the LM head is not packed")
        return self._linear

    def take(self, linear: Linear) -> None:
        """Multiplies by a weight that is packed already."""
        self._linear = linear
        release(self.weight)

    def __call__(self, x: Tensor) -> Tensor | None:
        """The logits in the dtype that the product has. Their rows may be further apart than
        `vocab_size`. Nothing here depends on values or waits for the device."""
        if x.shape[0] == 0:
            return x.new_empty(0, self._vocab_size) if self._is_root else None
        parts = self._group.gather(self.linear(x))
        if parts is None:
            return None
        logits = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return logits[:, : self._vocab_size]
