"""How much of MOSS a card has room for: on a small one a part runs fewer layers, or keeps more of
the weights on the host, and says so."""

from math import inf

import torch

from moss_tp.gpu_check.tools.shapes import MOSS, Shape
from moss_tp.hardware.gpu import GIB
from moss_tp.hardware.roofline import kv_bytes_per_token, num_block_weights

ITEM_BYTES = 2  # fp16, in which MOSS's shape is measured
OTHER_BYTES = 3 * GIB // 2  # CUDA's context, graphs, a step's and the sampler's memory
_KV_SHARE = 0.85  # of what is free after loading


def free_bytes(device: torch.device) -> float:
    """Of the card; without end on a CPU."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else inf


def layer_bytes(shape: Shape, tokens: int) -> float:
    """A block's weights, and its part of a cache for `tokens`."""
    block = num_block_weights(shape.config) * ITEM_BYTES
    return block + tokens * kv_bytes_per_token(shape.config, ITEM_BYTES) / shape.layers


def outer_bytes(shape: Shape) -> int:
    """The embedding and the LM head."""
    return 2 * shape.vocab_size * shape.hidden * ITEM_BYTES


def fitting(shape: Shape, tokens: int, free: float) -> Shape:
    """`shape` with as many of its layers as fit into `free` bytes with a cache for `tokens`. Raises
    RuntimeError if not even one does."""
    left = free - outer_bytes(shape) - OTHER_BYTES
    layers = left / layer_bytes(shape, round(tokens / _KV_SHARE))
    if layers < 1:
        raise RuntimeError(f"{free / GIB:.1f} GiB are free: too few for one layer of MOSS")
    return shape.with_layers(int(min(layers, shape.layers)), shape.vocab_size)


def offloaded_gib(shape: Shape, least_gib: float, kv_bytes: int, free: float) -> float:
    """GiB of the blocks' weights to keep on the host, at least `least_gib`, so that the others, two
    buffers and a cache of `kv_bytes` fit into `free` bytes."""
    block = layer_bytes(shape, 0)
    needed = outer_bytes(shape) + OTHER_BYTES + kv_bytes + (shape.layers + 2) * block
    return max(least_gib, (needed - free) / GIB)


def scale_of(shape: Shape) -> str:
    """For a verdict's note: "; 10 of MOSS's 34 layers", or nothing for all of them."""
    if shape.hidden != MOSS.hidden or shape.layers == MOSS.layers:
        return ""
    return f"; {shape.layers} of MOSS's {MOSS.layers} layers"
