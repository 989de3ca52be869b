"""A weight of 4 or 8 bits as the kernels read it.

Inputs are sorted by group, and each group is filled up to whole planes of PLANE inputs, so that a
plane has one scale. `16 / bits` planes lie in a tile: of each output PLANE words of 16 bits, word p
of which holds input p of every plane, the first plane lowest.

    tile t, output o, word p:   q[K = t * 16 / bits * PLANE + plane * PLANE + p, o] << bits * plane

Where groups come in order and are whole already, K is an input's own number.
"""

from dataclasses import dataclass
from math import gcd

import torch
from torch import Tensor

from moss_tp.kernels.quantized import WORD_BITS, QuantizedWeight

DTYPES = (torch.float16, torch.bfloat16)
PLANE = 32  # the smallest
WORD = 16  # bits
MAX_WORDS = 2**31 - 1  # kernels count them in 32 bits
MAX_FILLED = 2  # times the inputs
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
    """`inputs` are those of the x that kernels read: all of K, or its beginning."""

    words: Tensor  # (K / depth, outputs, plane) int16
    scales: Tensor  # (K / group, outputs) int32: scale in fp16, above it -(1024 + zero)
    order: Tensor | None  # (K,) int32: which input stands there, -1 for none; None: its own number
    inputs: int
    form: Form
    dtype: torch.dtype  # in which values are rounded

    @property
    def outputs(self) -> int:
        return self.words.shape[1]

    @property
    def size(self) -> int:
        """K."""
        return len(self.words) * self.form.depth

    @property
    def is_even(self) -> bool:
        """Whether x has whole tiles."""
        return self.inputs % self.form.depth == 0


def pack(weight: QuantizedWeight) -> PackedWeight:
    """On the weight's device."""
    sizes = torch.bincount(weight.groups, minlength=len(weight.scales)).cpu()
    plane = plane_of(weight.bits, gcd(*sizes.tolist()))
    depth = plane * WORD // weight.bits
    order = _order(weight.groups, sizes, plane, depth)
    group, rows = _groups(weight.groups, order, plane, depth)
    bits_of_scale = weight.scales[rows].contiguous().view(torch.int16).int() & 0xFFFF
    zero = (-MAGIC - weight.zeros[rows].to(torch.float16)).contiguous().view(torch.int16).int()
    inputs = weight.inputs
    own = torch.arange(inputs, device=order.device)
    is_own = len(order) - inputs < depth and torch.equal(order[:inputs], own)
    return PackedWeight(
        words=_words(weight, order, plane),
        scales=zero << WORD | bits_of_scale,
        order=None if is_own else order.int(),
        inputs=inputs if is_own else len(order),
        form=Form(weight.bits, group, plane),
        dtype=weight.dtype,
    )


def plane_of(bits: int, group: int) -> int:
    """For groups of multiples of `group` inputs."""
    return 2 * PLANE if bits == 8 and group % (2 * PLANE) == 0 else PLANE


def can_pack(weight: QuantizedWeight) -> bool:
    """fp32 has no matrix instructions, and many small groups would fill up to more than a dense
    weight has: `dense()` is as good."""
    filled = _filled(torch.bincount(weight.groups, minlength=len(weight.scales)), PLANE)
    is_full = int(filled.sum()) <= MAX_FILLED * weight.inputs
    is_small = MAX_FILLED * weight.packed.numel() * WORD_BITS // WORD <= MAX_WORDS
    return weight.dtype in DTYPES and is_full and is_small


def _order(groups: Tensor, sizes: Tensor, plane: int, depth: int) -> Tensor:
    """(K,) int64: inputs sorted by group, -1 where a group, or the last tile, is filled up."""
    filled = _filled(sizes, plane)
    total = int(filled.sum())
    order = groups.new_full((-(-total // depth) * depth,), -1, dtype=torch.int64)
    starts = (filled.cumsum(0) - filled).to(groups.device)
    ends = sizes.cumsum(0).to(groups.device)
    by_group = groups.long().argsort(stable=True)
    own = groups.long()[by_group]
    rank = torch.arange(len(groups), device=groups.device) - (ends - sizes.to(groups.device))[own]
    order[starts[own] + rank] = by_group
    return order


def _filled(sizes: Tensor, plane: int) -> Tensor:
    return -(-sizes // plane) * plane


def _groups(groups: Tensor, order: Tensor, plane: int, depth: int) -> tuple[int, Tensor]:
    """How much of K has one scale, and which group's it is."""
    first = order.view(-1, plane)[:, 0]
    of_plane = groups.long()[first.clamp_min(0)]
    # Planes that only fill the last tile up belong to the group before them.
    num_used = int((first >= 0).sum())
    of_plane[num_used:] = of_plane[num_used - 1]
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
