"""Random sequences over a paged cache, and their attention computed from dense K and V."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moss_tp.kernels.kv_cache import dequantize, quantize
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.kernels.rotary import Rotary, rotate
from tests.support.paged_sequences import padded


@dataclass(frozen=True)
class AttentionShape:
    heads: int = 3
    head_dim: int = 10
    rotary_dim: int = 6
    block_size: int = 4

    @property
    def scale(self) -> float:
        return float(self.head_dim**-0.5)


@dataclass(frozen=True)
class Case:
    qkv: Tensor  # (T, 3, H, D)
    rotary: Rotary
    cache: tuple[Tensor, Tensor]
    plan: AttentionPlan
    scale: float
    expected: Tensor  # (T, H * D) fp32
    keys: Tensor  # (T, H, D) fp32, rotated: what the cache must hold


def make_case(
    lens: list[tuple[int, int]],
    dtype: torch.dtype,
    shape: AttentionShape | None = None,
    is_int8: bool = False,
) -> Case:
    """Sequences of `(query_len, context_len)` whose history is in the cache already, in shuffled
    blocks. For an int8 cache the expected result is that of its rounded values."""
    shape = shape or AttentionShape()
    random = torch.Generator().manual_seed(5)
    num_blocks = sum(-(-context // shape.block_size) for _, context in lens) + 2
    size = (num_blocks, shape.heads, shape.block_size, shape.head_dim)

    def stored(rows: Tensor) -> Tensor:
        return quantize(rows) if is_int8 else rows.to(dtype)

    # Unwritten slots hold large values: they must not leak into the result.
    cache = (stored(torch.full(size, 1e3)), stored(torch.full(size, 1e3)))
    free_blocks = torch.randperm(num_blocks, generator=random).tolist()
    longest = max(context for _, context in lens)
    rotary = Rotary.make(shape.rotary_dim, longest, torch.device("cpu"))
    slots, positions, tables, rows, keys, expected = [], [], [], [], [], []
    for query, context in lens:
        dense = torch.randn(context, 3, shape.heads, shape.head_dim, generator=random).to(dtype)
        tokens = torch.arange(context)
        table = [free_blocks.pop() for _ in range(-(-context // shape.block_size))]
        blocks, offsets = torch.tensor(table)[tokens // shape.block_size], tokens % shape.block_size
        history = context - query
        q, k = (rotate(dense[:, i].float(), rotary, tokens) for i in (0, 1))
        for part, value in zip(cache, (k, dense[:, 2]), strict=True):
            part[blocks[:history], :, offsets[:history]] = stored(value[:history])
        slots.append((blocks * shape.block_size + offsets)[history:])
        positions.append(tokens[history:])
        tables.append(table)
        rows.append(dense[history:])
        keys.append(k[history:])
        v = dense[:, 2].float()
        if is_int8:
            k, v = (dequantize(quantize(part)) for part in (k, v))
        expected.append(dense_attention(q[history:], k, v, shape.scale))
    plan = AttentionPlan(
        torch.cat(positions).numpy(),
        torch.cat(slots).numpy(),
        np.array([query for query, _ in lens]),
        np.array([context for _, context in lens]),
        padded(tables),
        shape.block_size,
    )
    qkv = torch.cat(rows)
    return Case(qkv, rotary, cache, plan, shape.scale, torch.cat(expected), torch.cat(keys))


def dense_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """One sequence in fp32, where `q` are its last rows. `(queries, H * D)`."""
    scores = torch.einsum("qhd,khd->hqk", q, k) * scale
    queries, context = scores.shape[1:]
    for query in range(queries):
        scores[:, query, context - queries + query + 1 :] = -torch.inf
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).flatten(1)
