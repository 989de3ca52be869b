"""A weight of 4 or 8 bits as the kernels read it.

Inputs are sorted by group, each leaf's for itself, and each group is filled up to whole planes of
PLANE inputs, so that a plane has one scale. A leaf is filled up to whole tiles, as many as the
longest one has: its order depends on no other leaf. `16 / bits` planes lie in a tile: of each
output PLANE words of 16 bits, word p of which holds input p of every plane, the first plane lowest.

    tile t, output o, word p:   q[K = t * 16 / bits * PLANE + plane * PLANE + p, o] << bits * plane

Where groups come in order and are whole already, K is an input's own number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

import torch
from torch import Tensor

from moss_tp.kernels.cuda.linear.cut import Cut
from moss_tp.kernels.quantized import QuantizedWeight
from moss_tp.quant_config import WORD_BITS

DTYPES = (torch.float16, torch.bfloat16)
PLANE = 32  # the smallest
WORD = 16  # bits
MAX_WORDS = 2**31 - 1  # kernels count them in 32 bits
# Times the inputs. Groups of 128 in act-order fill a leaf of 8 up to twice its inputs, smaller ones
# to four times, so that all ranks decide alike.
MAX_FILLED = 3
CHUNK = 1024  # of K at a time: what packing needs besides
MAGIC = 1024  # the fp16 1024 + q has q as its lowest bits


@dataclass(frozen=True)
class Form:
    """How K is laid out."""

    bits: int
    group: int  # of K with one scale
    plane: int = PLANE

    @property
    def depth(self) -> int:
        """Of K in a tile."""
        return self.plane * WORD // self.bits


@dataclass(frozen=True)
class PackedWeight:
    """`cut` is of the inputs of the x that kernels read: all of K, or its beginning."""

    words: Tensor  # (K / depth, outputs, plane) int16
    scales: Tensor  # (K / group, outputs) int32: scale in fp16, above it -(1024 + zero)
    order: Tensor | None  # (K,) int32: which input stands there, -1 for none; None: its own number
    cut: Cut
    form: Form
    dtype: torch.dtype  # in which values are rounded

    @property
    def outputs(self) -> int:
        return self.words.shape[1]

    @property
    def inputs(self) -> int:
        return self.cut.inputs

    @property
    def size(self) -> int:
        """K."""
        return len(self.words) * self.form.depth

    @property
    def is_even(self) -> bool:
        """Whether x has whole tiles."""
        return self.inputs % self.form.depth == 0


def pack(weight: QuantizedWeight, cut: Cut | None = None) -> PackedWeight:
    """On the weight's device. Without a `cut` it is one leaf."""
    own = cut or Cut(1, weight.inputs)
    leaves = own.inputs_of_leaves(weight.groups.device)
    sizes = _sizes(weight, leaves)
    plane = plane_of(weight.bits, gcd(*sizes.flatten().tolist()))
    depth = plane * WORD // weight.bits
    order = _order(weight.groups, leaves, sizes, plane, depth)
    natural = torch.arange(weight.inputs, device=order.device)
    is_own = _is_own(order, leaves, own, depth)
    if is_own:
        order = torch.cat((natural, order[weight.inputs :]))
    group, rows = _groups(weight.groups, order, plane, depth)
    bits_of_scale = weight.scales[rows].contiguous().view(torch.int16).int() & 0xFFFF
    zero = (-MAGIC - weight.zeros[rows].to(torch.float16)).contiguous().view(torch.int16).int()
    return PackedWeight(
        words=_words(weight, order, plane),
        scales=zero << WORD | bits_of_scale,
        order=None if is_own else order.int(),
        cut=own if is_own else Cut(own.leaves, len(order) // own.leaves),
        form=Form(weight.bits, group, plane),
        dtype=weight.dtype,
    )


def _is_own(order: Tensor, leaves: Sequence[Tensor], cut: Cut, depth: int) -> bool:
    """Whether kernels can read x as it is: each leaf has its own order, and whole tiles, but for
    the end of a single one."""
    is_whole = cut.leaves == 1 or cut.is_even(depth)
    in_order = torch.cat(list(leaves))
    num_filled = len(order) - len(in_order)
    return is_whole and num_filled < depth and torch.equal(order[: len(in_order)], in_order)


def plane_of(bits: int, group: int) -> int:
    """For groups of multiples of `group` inputs."""
    return 2 * PLANE if bits == 8 and group % (2 * PLANE) == 0 else PLANE


def can_pack(weight: QuantizedWeight, cut: Cut | None = None) -> bool:
    """fp32 has no matrix instructions, and many small groups would fill up to more than a dense
    weight has: `dense()` is as good."""
    own = cut or Cut(1, weight.inputs)
    filled = _filled(_sizes(weight, own.inputs_of_leaves(weight.groups.device)), PLANE)
    is_full = int(filled.sum()) <= MAX_FILLED * weight.inputs
    is_small = MAX_FILLED * weight.packed.numel() * WORD_BITS // WORD <= MAX_WORDS
    return weight.dtype in DTYPES and is_full and is_small


def _sizes(weight: QuantizedWeight, leaves: Sequence[Tensor]) -> Tensor:
    """(leaves, groups) on the host: inputs of each group in each leaf."""
    count = len(weight.scales)
    return torch.stack(
        [torch.bincount(weight.groups[own], minlength=count) for own in leaves]
    ).cpu()


def _order(
    groups: Tensor, leaves: Sequence[Tensor], sizes: Tensor, plane: int, depth: int
) -> Tensor:
    """(K,) int64: each leaf's inputs sorted by group, -1 where a group, or a leaf, is filled up."""
    longest = int(_filled(sizes, plane).sum(1).max())
    length = -(-longest // depth) * depth
    orders = [
        _order_of_leaf(groups, own, counts, plane, length)
        for own, counts in zip(leaves, sizes, strict=True)
    ]
    return torch.cat(orders)


def _order_of_leaf(
    groups: Tensor, inputs: Tensor, sizes: Tensor, plane: int, length: int
) -> Tensor:
    filled = _filled(sizes, plane)
    order = inputs.new_full((length,), -1)
    starts = (filled.cumsum(0) - filled).to(groups.device)
    firsts = (sizes.cumsum(0) - sizes).to(groups.device)
    of_input = groups[inputs].long()
    by_group = of_input.argsort(stable=True)
    own = of_input[by_group]
    rank = torch.arange(len(inputs), device=groups.device) - firsts[own]
    order[starts[own] + rank] = inputs[by_group]
    return order


def _filled(sizes: Tensor, plane: int) -> Tensor:
    return -(-sizes // plane) * plane


def _groups(groups: Tensor, order: Tensor, plane: int, depth: int) -> tuple[int, Tensor]:
    """How much of K has one scale, and which group's it is."""
    first = order.view(-1, plane)[:, 0]
    # Planes that only fill a leaf up belong to the group before them.
    places = torch.arange(len(first), device=first.device)
    last_used = torch.where(first >= 0, places, 0).cummax(0).values
    of_plane = groups.long()[first[last_used]]
    starts = (of_plane[1:] != of_plane[:-1]).nonzero()[:, 0] + 1
    common = gcd(*starts.tolist()) or len(of_plane)
    if common * plane % depth:
        common = gcd(common, depth // plane)
    return common * plane, of_plane[::common]


def _words(weight: QuantizedWeight, order: Tensor, plane: int) -> Tensor:
    planes = WORD // weight.bits
    depth = planes * plane
    words = torch.empty(
        len(order) // depth, weight.outputs, plane, dtype=torch.int16, device=order.device
    )
    per_word = WORD_BITS // weight.bits
    shift = torch.arange(0, WORD, weight.bits, dtype=torch.int32, device=order.device)
    tiles = max(1, CHUNK // depth)
    for start in range(0, len(words), tiles):
        some = order[start * depth : (start + tiles) * depth].clamp_min(0)
        level = weight.packed[some // per_word] >> (some % per_word * weight.bits).int()[:, None]
        level &= 2**weight.bits - 1
        level = level.view(-1, planes, plane, weight.outputs) << shift[:, None, None]
        words[start : start + tiles] = level.sum(1, dtype=torch.int32).transpose(1, 2)
    return words


def unpacked(weight: PackedWeight) -> Tensor:
    """(outputs, K) in `dtype`, as the kernels round it."""
    bits = weight.form.bits
    shift = torch.arange(0, WORD, bits, dtype=torch.int32, device=weight.words.device)
    level = weight.words.int()[:, None] >> shift[:, None, None] & 2**bits - 1
    level = level.transpose(2, 3).reshape(weight.size, weight.outputs)
    scale = (weight.scales & 0xFFFF).to(torch.int16).view(torch.float16).float()
    zero = (weight.scales >> WORD).to(torch.int16).view(torch.float16).float() + MAGIC
    row = torch.arange(weight.size, device=level.device) // weight.form.group
    values: Tensor = ((level.float() + zero[row]) * scale[row]).to(weight.dtype)
    return values.T.contiguous()
