"""A transformer block in two products, and blocks in sequence.

    normed        = layer_norm(x)
    qkv | mid     = normed @ [qkv_proj | fc_in]      GELU on the second
    mid           = [attention(qkv) | gelu(fc_in)]
    pieces        = mid @ [out_proj | fc_out]        sums of one or two leaves each
    x             = tree of pieces + bias + x        with the next block's layer_norm

Each weight is read once. A block is product, rotation and cache, attention, product, and sum with
the next block's norm: five launches. Attention is two where it is split, and one more in a step
that has both short and long tiles. A block alone (with tensor parallelism, or partly on the host)
has its norm, the tree of its pieces and, after the sum over the ranks, bias and residual apart: two
more. Weights in act-order have their input copied in it: one
more for each product.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from moss_tp.kernels.base import BlockWeights
from moss_tp.kernels.cuda.attention.attend import attend
from moss_tp.kernels.cuda.attention.cache import PagedCache
from moss_tp.kernels.cuda.attention.partials import partials_bytes
from moss_tp.kernels.cuda.attention.store import store_kv
from moss_tp.kernels.cuda.linear.norm import Norm, add_pieces, layer_norm, sum_pieces
from moss_tp.kernels.cuda.products import Product, product_of, product_of_leaves
from moss_tp.kernels.cuda.workspace import BlockShape, Workspace
from moss_tp.kernels.device_plan import DevicePlan
from moss_tp.kernels.rotary import Rotary


@dataclass(frozen=True, eq=False)
class PackedBlock:
    """A block's weights as its kernels read them."""

    norm_weight: Tensor  # (hidden,)
    norm_bias: Tensor
    first: tuple[Product, ...]  # of qkv_proj and fc_in: one, or one each
    second: Product  # of out_proj and fc_out

    @classmethod
    def of(cls, weights: BlockWeights) -> Self:
        """Copies the weights, on their device. A caller that drops a block's own weights before it
        packs the next has no more than one block twice."""
        norm_weight, norm_bias = weights.norm
        if norm_weight.is_cuda:
            torch.cuda.empty_cache()  # of the weights of the block before, in other sizes
        return cls(
            norm_weight=norm_weight.detach(),
            norm_bias=norm_bias.detach(),
            first=product_of(weights.qkv, weights.fc_in),
            second=product_of_leaves(weights.out, weights.fc_out, weights.leaves),
        )

    def tensors(self) -> tuple[Tensor, ...]:
        products = (tensor for own in (*self.first, self.second) for tensor in own.tensors())
        return self.norm_weight, self.norm_bias, *products

    def over(self, tensors: Sequence[Tensor]) -> Self:
        """The same block in other tensors, of the same shapes and dtypes."""
        norm_weight, norm_bias, *rest = tensors
        products = []
        for own in (*self.first, self.second):
            count = len(own.tensors())
            products.append(own.over(rest[:count]))
            rest = rest[count:]
        *first, second = products
        return replace(
            self, norm_weight=norm_weight, norm_bias=norm_bias, first=tuple(first), second=second
        )


@dataclass(frozen=True, eq=False)
class CudaBlock:
    """See `BlockKernel`. A result is in the workspace, until the next call of any block."""

    packed: PackedBlock
    shape: BlockShape
    eps: float
    workspace: Workspace

    @classmethod
    def pack(cls, weights: BlockWeights, workspace: Workspace) -> Self:
        width = weights.qkv.outputs // 3
        packed = PackedBlock.of(weights)
        shape = BlockShape(
            hidden=weights.qkv.inputs,
            inner=weights.fc_in.outputs,
            heads=width // weights.head_dim,
            head_dim=weights.head_dim,
            leaves=weights.leaves,
            arranged=tuple(own.arranged for own in (*packed.first, packed.second)),
        )
        workspace.serve(shape)
        return cls(packed, shape, weights.eps, workspace)

    def tensors(self) -> tuple[Tensor, ...]:
        """All weights, in the order of PackedBlock."""
        return self.packed.tensors()

    def over(self, tensors: Sequence[Tensor]) -> Self:
        """The same block with its weights in `tensors`, of the same shapes and dtypes."""
        return replace(self, packed=self.packed.over(tensors))

    @property
    def norm(self) -> Norm:
        return (self.packed.norm_weight, self.packed.norm_bias, self.eps)

    def __call__(self, x: Tensor, rotary: Rotary, cache: PagedCache, plan: DevicePlan) -> Tensor:
        return sum_pieces(self.pieces(self.normed(x), rotary, cache, plan))

    def finish(self, total: Tensor, x: Tensor) -> Tensor:
        return self.add_up(total[None], x)

    def normed(self, x: Tensor) -> Tensor:
        out = self.workspace.rows("normed", x, self.shape.hidden)
        layer_norm(x, self.norm, out)
        return out

    def pieces(self, normed: Tensor, rotary: Rotary, cache: PagedCache, plan: DevicePlan) -> Tensor:
        """`(pieces, T, hidden)` fp32, all of the block but for bias and residual."""
        shape, workspace, rows = self.shape, self.workspace, len(normed)
        qkv = workspace.rows("qkv", normed, 3 * shape.width)
        mid = workspace.rows("mid", normed, shape.mid_stride)[:, : shape.mid]
        self._first(normed, qkv, mid[:, shape.width :])
        heads = qkv.view(rows, 3, shape.heads, shape.head_dim)
        store_kv(heads, rotary, cache, plan)
        scale = shape.head_dim**-0.5
        attend(heads, cache, plan, scale, mid[:, : shape.width], self._partials(normed, plan))
        return self.packed.second.pieces(mid, workspace)

    def _first(self, normed: Tensor, qkv: Tensor, inner: Tensor) -> None:
        if len(self.packed.first) == 1:
            self.packed.first[0].multiply(normed, qkv, inner, self.workspace)
            return
        of_qkv, of_inner = self.packed.first
        of_qkv.multiply(normed, qkv, None, self.workspace)
        of_inner.multiply(normed, None, inner, self.workspace)

    def add_up(self, pieces: Tensor, x: Tensor, following: Self | None = None) -> Tensor:
        """The block's result for its input x. Also norms it for the block that follows."""
        out = self.workspace.rows("x", x, self.shape.hidden)
        norm = normed = None
        if following is not None:
            norm = following.norm
            normed = self.workspace.rows("normed", x, self.shape.hidden)
        add_pieces(pieces, self.packed.second.bias, x, out, norm, normed)
        return out

    def _partials(self, like: Tensor, plan: DevicePlan) -> Tensor:
        size = partials_bytes(plan.limits, self.shape.heads, self.shape.head_dim)
        return self.workspace.take("partials", (size // 4,), like, torch.float32)


class CudaChain:
    """Blocks in sequence, each ended together with the norm of the next. See `ChainKernel`."""

    def __init__(self, blocks: Sequence[CudaBlock]) -> None:
        self._blocks = tuple(blocks)

    def __call__(
        self, x: Tensor, rotary: Rotary, layers: Sequence[PagedCache], plan: DevicePlan
    ) -> Tensor:
        normed = self._blocks[0].normed(x)
        followers = (*self._blocks[1:], None)
        for block, following, cache in zip(self._blocks, followers, layers, strict=True):
            pieces = block.pieces(normed, rotary, cache, plan)
            x = block.add_up(pieces, x, following)
        return x
