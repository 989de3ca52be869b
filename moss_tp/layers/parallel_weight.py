"""The weights of linear layers that are split over the ranks of a TPGroup.

    column parallel   a rank holds some of the outputs: rows of the stored weight
    row parallel      a rank holds some of the inputs: columns of the stored weight; its result is
                      a partial sum over the ranks

A column-parallel layer feeds a row-parallel one with no exchange between ranks. The functions give
a rank's shard of a stored weight; the module holds that shard for the loader to fill, then hands
it to a kernel, which computes. `quantized_weight` is the same for
a quantized one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from moss_tp.config import QKV_GROUPS
from moss_tp.kernels.base import DenseWeight
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.quant_config import BIAS, WEIGHT
from moss_tp.weights.shard import Shard


def column_parallel(inputs: int, outputs: int, group: TPGroup) -> Shard:
    """`x (T, inputs) -> (T, outputs / tp_size)`: this rank's outputs."""
    return Shard.part((outputs, inputs), 0, group.rank, group.size)


def row_parallel(inputs: int, outputs: int, group: TPGroup) -> Shard:
    """`x (T, inputs / tp_size) -> (T, outputs)`: a partial sum."""
    return Shard.part((outputs, inputs), 1, group.rank, group.size)


def qkv_parallel(hidden: int, group: TPGroup) -> Shard:
    """`x (T, hidden) -> (T, 3 * hidden / tp_size)`: q, k and v of this rank's heads.

    Stored are QKV_GROUPS groups of rows `[q | v | k]`. This rank's heads are picked out of them
    into rows `[q | k | v]`, so every tp_size that divides the heads works.
    """
    local = hidden // group.size
    start = group.rank * local
    spans = (
        span
        for offset in (0, 2, 1)  # of q, k and v in a stored group
        for span in _stored_qkv_spans(start, start + local, hidden, offset)
    )
    return Shard((3 * hidden, hidden), 0, tuple(spans))


def _stored_qkv_spans(start: int, stop: int, hidden: int, offset: int) -> Iterator[tuple[int, int]]:
    """Where rows `start:stop` of q (`offset` 0), v (1) or k (2) are among the stored rows.

    stored:  | q0 | v0 | k0 | q1 | v1 | k1 | ...   each hidden / QKV_GROUPS rows
    """
    length = hidden // QKV_GROUPS
    while start < stop:
        index, within = divmod(start, length)
        count = min(length - within, stop - start)
        first = (3 * index + offset) * length + within
        yield first, first + count
        start += count


@dataclass(frozen=True)
class BiasPart:
    """This rank's part of a bias; none where `shard` is None. Padding makes it `num_outputs`."""

    shard: Shard | None = None
    num_outputs: int = 0

    def parameter(self, device: torch.device, dtype: torch.dtype) -> nn.Parameter | None:
        if self.shard is None:
            return None
        return empty_parameter(self.num_outputs, device=device, dtype=dtype)


def bias_part(shard: Shard, num_outputs: int | None) -> BiasPart:
    """The bias of the weight `shard`. Row-parallel results are summed over the ranks; each of them
    adds the whole bias to the sum."""
    outputs, is_column_parallel = shard.shape[:1], shard.dim == 0
    part = Shard(outputs, 0, shard.spans) if is_column_parallel else Shard.whole(outputs)
    return BiasPart(part, num_outputs or part.local_shape[0])


class DenseParallelWeight(nn.Module):
    """This rank's `shard` of a stored weight `(outputs, inputs)`, and of its bias `(outputs,)`.

    `device` is where they are loaded to, None for the group's. Rows of zeros pad the outputs to
    `num_outputs`.
    """

    def __init__(
        self,
        shard: Shard,
        group: TPGroup,
        dtype: torch.dtype,
        *,
        has_bias: bool = False,
        device: torch.device | None = None,
        num_outputs: int | None = None,
    ) -> None:
        super().__init__()
        outputs, inputs = shard.local_shape
        place = device or group.device
        self.weight = empty_parameter(num_outputs or outputs, inputs, device=place, dtype=dtype)
        self._bias = bias_part(shard, num_outputs) if has_bias else BiasPart()
        self.bias = self._bias.parameter(place, dtype)
        biases = {} if self._bias.shard is None else {BIAS: self._bias.shard}
        self.shards: Mapping[str, Shard] = {WEIGHT: shard, **biases}

    def kernel_weight(self) -> DenseWeight:
        """What a kernel multiplies by on this rank."""
        return DenseWeight(self.weight, self.bias)


def empty_parameter(*shape: int, device: torch.device, dtype: torch.dtype) -> nn.Parameter:
    """Storage for the loader to fill."""
    return nn.Parameter(torch.empty(shape, dtype=dtype, device=device), requires_grad=False)


def release(module: nn.Module) -> None:
    """Drops the module's parameters after kernels have taken them over."""
    for part in module.modules():
        for name in tuple(part._parameters):
            part._parameters[name] = None
