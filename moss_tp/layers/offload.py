"""Blocks whose weights stay in pinned host memory and are copied to the device in every step.

    transfer   | copy 0 | copy 1 |        | copy 2 |  copy 3  ...     into buffers 0, 1, 0, 1, ...
    compute    |  resident ...   | block 0 | ...  | block 1 | ...
                                 waits for copy 0; copy 2 waits for block 0

So the next streamed block is copied while others compute. All of it is queued on an Accelerator,
and every step begins and ends with `transfer` joined to `compute`: a step can be recorded as a
graph. Vectors (biases, norms) stay on the device: they are small.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from moss_tp.accelerator.base import Accelerator, Event
from moss_tp.errors import ConfigError

NUM_BUFFERS = 2
# torch's allocator rounds pinned memory up to a power of two, so a block is kept in such pieces.
PIECE_BYTES = 64 << 20
_ALIGNMENT = 256


class StreamableBlock(Protocol):
    """A block kernel, as far as its storage matters."""

    def tensors(self) -> Sequence[Tensor]:
        """All weights that it reads, as it has packed them."""
        ...

    def over(self, tensors: Sequence[Tensor]) -> Self:
        """The same block with its weights in `tensors`, of the same shapes and dtypes."""
        ...


B = TypeVar("B", bound=StreamableBlock)


@dataclass(frozen=True)
class Offload:
    """What a rank keeps on its host: at least `num_bytes` of its blocks, in whole blocks."""

    num_bytes: int
    accelerator: Accelerator


def streamed_layers(num_layers: int, block_bytes: int, num_bytes: int) -> tuple[int, ...]:
    """The layers of which `num_bytes` or more are streamed, spread evenly, the last being one.

    Each is the last of its stretch, so that its copy has the whole stretch before it to overlap
    with, also at the beginning of a step.
    """
    count = min(num_layers, -(-num_bytes // block_bytes))
    return tuple(-(-(index + 1) * num_layers // count) - 1 for index in range(count))


class WeightStream:
    """The streamed blocks of one rank. `add` them in the order in which a step computes them.

    In a step: `begin` once; then for each layer `before` it and, when the work that reads its
    matrices is queued, `after` it. Layers that are not streamed may be named, too.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._buffers: list[Tensor] = []  # (block bytes,) uint8 on the device
        self._sources: list[list[Tensor]] = []  # a block's pieces, pinned
        self._index: dict[int, int] = {}  # of a layer among the streamed ones
        self._num_queued = 0  # copies of this step
        self._ready: deque[Event] = deque()  # after each copy that no block has waited for

    @property
    def host_bytes(self) -> int:
        return sum(piece.nbytes for pieces in self._sources for piece in pieces)

    def add(self, layer: int, block: B) -> B:
        """Moves the matrices of `block`, which is on the host, to pinned memory. Returns the block
        that reads them in a buffer on the device. Raises ConfigError for one of another size than
        those before it: some of its layers are quantized otherwise, or, as a rank's part of a
        weight in act-order, filled up otherwise."""
        tensors = block.tensors()
        places, num_bytes = _places(tensors)
        buffer = self._buffer(num_bytes)
        host = torch.zeros(num_bytes, dtype=torch.uint8)
        for start, tensor in zip(places, tensors, strict=True):
            if start is not None:
                _view(host, start, tensor).copy_(tensor)
        self._index[layer] = len(self._sources)
        self._sources.append([self._pinned(piece) for piece in _pieces(host)])
        device = self._accelerator.device
        return block.over(
            [
                tensor.to(device) if start is None else _view(buffer, start, tensor)
                for start, tensor in zip(places, tensors, strict=True)
            ]
        )

    def begin(self) -> None:
        """Queues the first copies, after all that the device still has to compute."""
        self._num_queued = 0
        self._ready.clear()
        self._accelerator.transfer.wait(self._accelerator.compute.record())
        for _ in self._buffers:
            self._queue_copy()

    def before(self, layer: int) -> None:
        """The block's kernels, queued from now on, run after its weights have come."""
        if layer in self._index:
            self._accelerator.compute.wait(self._ready.popleft())

    def after(self, layer: int) -> None:
        """The buffer of the layer is free when what is queued so far has run."""
        if layer in self._index and self._num_queued < len(self._sources):
            self._accelerator.transfer.wait(self._accelerator.compute.record())
            self._queue_copy()

    def _queue_copy(self) -> None:
        transfer, index = self._accelerator.transfer, self._num_queued
        if index == len(self._sources):
            return
        buffer = self._buffers[index % len(self._buffers)]
        for to, piece in zip(_pieces(buffer), self._sources[index], strict=True):
            transfer.copy(to, piece)
        self._num_queued += 1
        self._ready.append(transfer.record())

    def _buffer(self, num_bytes: int) -> Tensor:
        """The buffer of the block that is being added."""
        index = len(self._sources) % NUM_BUFFERS
        if index == len(self._buffers):
            device = self._accelerator.device
            self._buffers.append(torch.zeros(num_bytes, dtype=torch.uint8, device=device))
        buffer = self._buffers[index]
        if buffer.nbytes != num_bytes:
            raise ConfigError(
                f"cpu_offload_gb is set, but a block of {num_bytes} bytes cannot be streamed among "
                f"blocks of {buffer.nbytes}: this model's are not all stored alike"
            )
        return buffer

    def _pinned(self, piece: Tensor) -> Tensor:
        pinned = self._accelerator.pinned(tuple(piece.shape), piece.dtype)
        return pinned.copy_(piece)


def _places(tensors: Sequence[Tensor]) -> tuple[list[int | None], int]:
    """Where each matrix begins in a block's buffer (None: a vector, not there), and its size."""
    places: list[int | None] = []
    end = 0
    for tensor in tensors:
        is_streamed = tensor.dim() > 1
        places.append(end if is_streamed else None)
        if is_streamed:
            end += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    return places, end


def _pieces(x: Tensor) -> list[Tensor]:
    return [x[start : start + PIECE_BYTES] for start in range(0, len(x), PIECE_BYTES)]


def _view(buffer: Tensor, start: int, tensor: Tensor) -> Tensor:
    """The part of `buffer` at `start` that holds a tensor like `tensor`."""
    return buffer[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
