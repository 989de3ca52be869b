"""The paged kernel against attention written out on each sequence's own dense K and V."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from moss_tp.errors import ConfigError
from moss_tp.kernels import attend_paged
from moss_tp.kernels.plan import AttentionPlan

HEADS, HEAD_DIM, BLOCK_SIZE, NUM_BLOCKS = 3, 10, 4, 40
SCALE = HEAD_DIM**-0.5

# (query_len, context_len) a sequence: decodes alone, prefills alone, and mixed.
BATCHES = {
    "decodes": [(1, 1), (1, 4), (1, 5), (1, 23)],
    "one decode": [(1, 9)],
    "prefill": [(6, 6), (8, 8)],
    "chunk": [(5, 13)],
    "mixed": [(1, 7), (6, 6), (1, 16), (3, 22), (1, 1)],
}


@dataclass(frozen=True)
class Case:
    q: Tensor  # (T, H, D)
    k: Tensor
    v: Tensor
    cache: tuple[Tensor, Tensor]
    plan: AttentionPlan
    expected: Tensor


def make_case(lens: list[tuple[int, int]], dtype: torch.dtype, as_tensor: bool = False) -> Case:
    """Random sequences whose history lies in the cache, in blocks in no order."""
    random = torch.Generator().manual_seed(5)
    shape = (NUM_BLOCKS, BLOCK_SIZE, HEADS, HEAD_DIM)
    # What is not written stays large: it must not leak into the result.
    cache = (torch.full(shape, 1e3, dtype=dtype), torch.full(shape, 1e3, dtype=dtype))
    free = torch.randperm(NUM_BLOCKS, generator=random).tolist()
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    slots, tables, expected = [], [], []
    for query, context in lens:
        q, k, v = torch.randn(3, context, HEADS, HEAD_DIM, generator=random).to(dtype)
        table = [free.pop() for _ in range(-(-context // BLOCK_SIZE))]
        own = torch.tensor(
            [table[p // BLOCK_SIZE] * BLOCK_SIZE + p % BLOCK_SIZE for p in range(context)]
        )
        history = context - query
        for part, dense in zip(cache, (k, v), strict=True):
            part.flatten(0, 1)[own[:history]] = dense[:history]
        rows.append((q[history:], k[history:], v[history:]))
        slots.append(own[history:])
        tables.append(table)
        expected.append(dense_attention(q[history:], k, v))
    width = max(map(len, tables))
    padded = torch.tensor([table + [0] * (width - len(table)) for table in tables])
    plan = AttentionPlan.make(
        torch.cat(slots),
        [query for query, _ in lens],
        [context for _, context in lens],
        padded if as_tensor else tables,
        BLOCK_SIZE,
    )
    q, k, v = (torch.cat(parts) for parts in zip(*rows, strict=True))
    return Case(q, k, v, cache, plan, torch.cat(expected))


def dense_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One sequence, written out in fp32: `q` are its last rows. `(queries, H, D)`."""
    scores = torch.einsum("qhd,khd->hqk", q.float(), k.float()) * SCALE
    queries, context = scores.shape[1:]
    for query in range(queries):
        scores[:, query, context - queries + query + 1 :] = -torch.inf
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v.float())


def attend(case: Case) -> Tensor:
    return attend_paged(case.q, case.k, case.v, case.cache, case.plan, SCALE)


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("name", BATCHES)
def test_equals_dense_attention(name: str, as_tensor: bool) -> None:
    case = make_case(BATCHES[name], torch.float32, as_tensor)
    torch.testing.assert_close(attend(case), case.expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", BATCHES)
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    """Scores are kept in fp32, so only inputs and output are rounded."""
    case = make_case(BATCHES[name], dtype)
    out = attend(case)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), case.expected, atol=2e-2, rtol=2e-2)


def test_the_cache_holds_the_steps_rows() -> None:
    case = make_case(BATCHES["mixed"], torch.float32)
    attend(case)
    for part, rows in zip(case.cache, (case.k, case.v), strict=True):
        assert torch.equal(part.flatten(0, 1)[case.plan.slot_mapping], rows)
        assert int((part != 1e3).any(-1).any(-1).sum()) == sum(c for _, c in BATCHES["mixed"])


def test_what_does_not_fit_together() -> None:
    case = make_case(BATCHES["mixed"], torch.float32)
    half = (case.cache[0].half(), case.cache[1].half())
    with pytest.raises(ValueError, match="float16"):
        attend_paged(case.q, case.k, case.v, half, case.plan, SCALE)
    with pytest.raises(ValueError, match="slots"):
        attend_paged(case.q[1:], case.k[1:], case.v[1:], case.cache, case.plan, SCALE)
    with pytest.raises(ValueError, match="caches"):
        fewer = case.q[:, 1:]
        attend_paged(fewer, fewer, fewer, case.cache, case.plan, SCALE)


def test_a_device_without_kernels() -> None:
    case = make_case(BATCHES["one decode"], torch.float32)
    meta = torch.empty_like(case.q, device="meta")
    with pytest.raises(ConfigError, match="no attention kernels for meta"):
        attend_paged(meta, meta, meta, case.cache, case.plan, SCALE)
