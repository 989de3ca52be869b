"""Memory of a step: every buffer that its kernels write, at addresses that stay.

How much the largest step needs follows from its limits and the model's shape, so it is reserved
before the first step, and a larger one is refused. Without a reservation buffers grow as they are
asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from moss_tp.errors import StepMemoryError
from moss_tp.kernels.cuda.attention.partials import partials_bytes
from moss_tp.kernels.cuda.linear.cut import max_pieces_rows
from moss_tp.kernels.device_plan import StepLimits

ALIGNMENT = 256  # bytes; kernels load 16 at once


@dataclass(frozen=True)
class BlockShape:
    """A block on one rank: `heads`, `inner` and `leaves` are this rank's. `arranged` are the
    columns of its products' inputs, where they are copied in the order of their weights, 0 where
    not."""

    hidden: int
    inner: int
    heads: int
    head_dim: int
    leaves: int
    arranged: tuple[int, ...] = (0,)

    @property
    def width(self) -> int:
        """Of this rank's heads."""
        return self.heads * self.head_dim

    @property
    def mid(self) -> int:
        """Inputs of the second product: of attention and of the MLP's inner columns."""
        return self.width + self.inner

    @property
    def mid_stride(self) -> int:
        """Of rows that all begin at multiples of 16 bytes."""
        return -(-self.mid // 8) * 8

    def bytes(self, limits: StepLimits, itemsize: int) -> dict[str, int]:
        rows = limits.max_rows
        pieces_rows = max_pieces_rows(self.leaves, rows)
        return {
            "x": rows * self.hidden * itemsize,
            "normed": rows * self.hidden * itemsize,
            "qkv": rows * 3 * self.width * itemsize,
            "mid": rows * self.mid_stride * itemsize,
            "pieces": pieces_rows * self.hidden * torch.float32.itemsize,
            "partials": partials_bytes(limits, self.heads, self.head_dim),
            "arranged": rows * max(self.arranged) * itemsize,
        }


@dataclass(frozen=True)
class HeadShape:
    """The final norm and the LM head on one rank."""

    hidden: int
    vocab: int
    arranged: int = 0

    def bytes(self, limits: StepLimits, itemsize: int) -> dict[str, int]:
        rows = limits.max_logit_rows
        widths = {"chosen": self.hidden, "logits": self.vocab, "arranged": self.arranged}
        return {name: rows * width * itemsize for name, width in widths.items()}


class Workspace:
    """A buffer has a name and one user at a time: what is in it lasts until it is taken again."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._shapes: set[BlockShape | HeadShape] = set()
        self.buffers: dict[str, Tensor] = {}  # (bytes,) uint8
        self.num_reserved: int | None = None  # bytes, once reserved

    def serve(self, shape: BlockShape | HeadShape) -> None:
        """Buffers for what has this shape, too."""
        self._shapes.add(shape)

    def bytes(self, limits: StepLimits) -> int:
        """What `reserve` allocates. It grows with each of the limits."""
        return sum(map(_aligned, self._sizes(limits).values()))

    def reserve(self, limits: StepLimits, device: torch.device) -> None:
        """Allocates all that steps within `limits` need, at once; larger ones are refused."""
        arena = torch.empty(self.bytes(limits), dtype=torch.uint8, device=device)
        self.buffers, start = {}, 0
        for name, size in self._sizes(limits).items():
            self.buffers[name] = arena[start : start + size]
            start += _aligned(size)
        self.num_reserved = arena.nbytes

    def take(self, name: str, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype) -> Tensor:
        """Contiguous memory on the device of `like`, its values undefined.

        Raises StepMemoryError when it is more than what is reserved.
        """
        size = prod(shape) * dtype.itemsize
        buffer = self.buffers.get(name)
        if buffer is None or buffer.nbytes < size or buffer.device != like.device:
            buffer = self._grown(name, size, like)
        return buffer[:size].view(dtype).view(shape)

    def rows(self, name: str, like: Tensor, width: int) -> Tensor:
        """`take` of `(len(like), width)` in the model's dtype."""
        return self.take(name, (len(like), width), like, self.dtype)

    def _grown(self, name: str, size: int, like: Tensor) -> Tensor:
        if self.num_reserved is not None:
            raise StepMemoryError(f"a step needs {size} bytes for {name}, more than are reserved")
        buffer = torch.empty(size, dtype=torch.uint8, device=like.device)
        self.buffers[name] = buffer
        return buffer

    def _sizes(self, limits: StepLimits) -> Mapping[str, int]:
        sizes: dict[str, int] = {}
        for shape in self._shapes:
            for name, size in shape.bytes(limits, self.dtype.itemsize).items():
                sizes[name] = max(size, sizes.get(name, 0))
        return dict(sorted(sizes.items()))


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
