"""The weights of linear layers that are split over the ranks of a TPGroup.

    column parallel   a rank holds some of the outputs: rows of the stored weight
    row parallel      a rank holds some of the inputs: columns of the stored weight; its result is
                      a partial sum over the ranks

A column-parallel layer feeds a row-parallel one with no exchange between ranks. The functions give
a rank's shard of a stored weight; the module holds that shard for the loader to fill, then hands
it to a kernel, which computes. A quantized weight is one more such module.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from moss_tp.config import QKV_GROUPS
from moss_tp.kernels.base import DenseWeight
from moss_tp.parallel.tp_group import TPGroup
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


class DenseParallelWeight(nn.Module):
    """This rank's `shard` of a stored weight `(outputs, inputs)`, and of its bias `(outputs,)`.

    Row-parallel results are summed over the ranks, so only rank 0 adds the bias there. `device` is
    where they are loaded to, None for the group's.
    """

    def __init__(
        self,
        shard: Shard,
        group: TPGroup,
        dtype: torch.dtype,
        *,
        has_bias: bool = False,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        shards = {"weight": shard}
        place = device or group.device
        self.weight = empty_parameter(*shard.local_shape, device=place, dtype=dtype)
        self.bias: nn.Parameter | None = None
        if has_bias:
            outputs = shard.shape[:1]
            is_column_parallel = shard.dim == 0
            bias = Shard(outputs, 0, shard.spans) if is_column_parallel else Shard.whole(outputs)
            shards["bias"] = bias
            self.bias = empty_parameter(*bias.local_shape, device=place, dtype=dtype)
        self.adds_bias = has_bias and (shard.dim == 0 or group.rank == 0)
        self.shards: Mapping[str, Shard] = shards

    def kernel_weight(self) -> DenseWeight:
        """What a kernel multiplies by on this rank."""
        return DenseWeight(self.weight, self.bias if self.adds_bias else None)


def empty_parameter(*shape: int, device: torch.device, dtype: torch.dtype) -> nn.Parameter:
    """Storage for the loader to fill."""
    return nn.Parameter(torch.empty(shape, dtype=dtype, device=device), requires_grad=False)


def release(module: nn.Module) -> None:
    """Drops the module's parameters after kernels have taken them over."""
    for part in module.modules():
        for name in tuple(part._parameters):
            part._parameters[name] = None
