"""Linear layers that know how they are split over the ranks of a TPGroup.

Column-parallel layers hold some outputs each, row-parallel ones some inputs each, so the first
feeds the second with no exchange. They hold parameters for the loader to fill; a block hands
these to its kernel, which does the arithmetic of all of them at once.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from moss_tp.config import QKV_GROUPS
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.weights.load import Shard


def empty_parameter(*shape: int, group: TPGroup, dtype: torch.dtype) -> nn.Parameter:
    """Storage on the group's device for the loader to fill."""
    return nn.Parameter(torch.empty(shape, dtype=dtype, device=group.device), requires_grad=False)


def release(module: nn.Module) -> None:
    """Drops the module's parameters: a kernel has taken them over."""
    for part in module.modules():
        for name in tuple(part._parameters):
            part._parameters[name] = None


class ColumnParallelLinear(nn.Module):
    """`x (T, inputs) -> (T, outputs / tp_size)`: this rank's outputs."""

    def __init__(self, inputs: int, outputs: int, group: TPGroup, dtype: torch.dtype) -> None:
        super().__init__()
        local = outputs // group.size
        self.weight = empty_parameter(local, inputs, group=group, dtype=dtype)
        self.bias = empty_parameter(local, group=group, dtype=dtype)
        self.shards: Mapping[str, Shard] = {
            "weight": Shard.part((outputs, inputs), 0, group.rank, group.size),
            "bias": Shard.part((outputs,), 0, group.rank, group.size),
        }


class QKVParallelLinear(nn.Module):
    """`x (T, hidden) -> (T, 3 * hidden / tp_size)`: q, k and v of this rank's heads; no bias.

    The stored rows come in QKV_GROUPS groups of `[q | v | k]`; this rank's heads are picked out
    of them into rows `[q | k | v]`, so that any tp_size that divides the heads will do.
    """

    def __init__(self, hidden: int, group: TPGroup, dtype: torch.dtype) -> None:
        super().__init__()
        local = hidden // group.size
        self.weight = empty_parameter(3 * local, hidden, group=group, dtype=dtype)
        start = group.rank * local
        spans = (
            span
            for offset in (0, 2, 1)  # where q, k and v stand in a stored group
            for span in stored_qkv_spans(start, start + local, hidden, offset)
        )
        self.shards: Mapping[str, Shard] = {"weight": Shard((3 * hidden, hidden), 0, tuple(spans))}


class RowParallelLinear(nn.Module):
    """`x (T, inputs / tp_size) -> (T, outputs)`: a partial sum, still to be added over ranks."""

    def __init__(
        self, inputs: int, outputs: int, group: TPGroup, dtype: torch.dtype, *, bias: bool
    ) -> None:
        super().__init__()
        self.weight = empty_parameter(outputs, inputs // group.size, group=group, dtype=dtype)
        self.shards: Mapping[str, Shard] = {
            "weight": Shard.part((outputs, inputs), 1, group.rank, group.size)
        }
        self.bias = empty_parameter(outputs, group=group, dtype=dtype) if bias else None
        # The partial sums are added up, so the bias must be in one of them only.
        self.adds_bias = bias and group.rank == 0

    @property
    def own_bias(self) -> Tensor | None:
        """What this rank adds to its partial sum."""
        return self.bias if self.adds_bias else None


def stored_qkv_spans(start: int, stop: int, hidden: int, offset: int) -> list[tuple[int, int]]:
    """Where rows `start:stop` of q (`offset` 0), v (1) or k (2) lie among the stored rows.

    stored:  | q0 | v0 | k0 | q1 | v1 | k1 | ...   each hidden / QKV_GROUPS rows
    """
    length = hidden // QKV_GROUPS
    spans = []
    while start < stop:
        index, within = divmod(start, length)
        count = min(length - within, stop - start)
        first = (3 * index + offset) * length + within
        spans.append((first, first + count))
        start += count
    return spans
