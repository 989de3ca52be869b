"""Every kernel's wrapper on random arguments: on the CPU it runs the kernel's reference."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from moss_tp.gpu_check.tools.plans import Chunk, device_plan
from moss_tp.kernels.cuda.attention.attend import attend
from moss_tp.kernels.cuda.attention.cache import PagedCache, PagedFormat
from moss_tp.kernels.cuda.attention.partials import partials_bytes
from moss_tp.kernels.cuda.attention.store import store_kv
from moss_tp.kernels.cuda.linear.cut import Cut, num_pieces
from moss_tp.kernels.cuda.linear.gemm import multiply, multiply_pieces
from moss_tp.kernels.cuda.linear.norm import add_pieces, layer_norm, sum_pieces
from moss_tp.kernels.cuda.runtime.read import read_sums
from moss_tp.kernels.device_plan import DevicePlan
from moss_tp.kernels.kv_cache import BlockShape
from moss_tp.kernels.rotary import Rotary

Tensors = dict[str, Tensor]
BLOCK_SIZE = 16
EPS = 1e-5
LEAVES = 8


@dataclass(frozen=True)
class Case:
    """`run` writes `outputs`, which hold NaN before, from the other tensors."""

    name: str
    tensors: Tensors
    outputs: tuple[str, ...]
    run: Callable[[Tensors], None]


@dataclass(frozen=True)
class Numbers:
    """Random tensors on the CPU."""

    dtype: torch.dtype
    generator: torch.Generator

    def __call__(self, *shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(shape, generator=self.generator) * scale).to(self.dtype)

    def empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.dtype)


def products(numbers: Numbers, rows: int, outputs: int, inputs: int) -> Iterator[Case]:
    """Outputs and inputs are the product's with a bias; half of the outputs go through GELU."""
    plain = outputs // 2
    first = {
        "x": numbers(rows, inputs),
        "weight": numbers(outputs, inputs, scale=inputs**-0.5),
        "bias": numbers(outputs),
        "plain": numbers.empty(rows, plain),
        "gelu": numbers.empty(rows, outputs - plain),
    }
    yield Case(
        f"product, {rows} rows",
        first,
        ("plain", "gelu"),
        lambda t: multiply(t["x"], t["weight"], t["bias"], t["plain"], t["gelu"]),
    )
    cut = Cut(LEAVES, 8, inputs // LEAVES - 8)
    second = {
        "x": first["x"],
        "weight": first["weight"],
        "pieces": torch.empty(num_pieces(LEAVES, rows), rows, outputs),
    }
    yield Case(
        f"leaves of a product, {rows} rows",
        second,
        ("pieces",),
        lambda t: multiply_pieces(t["x"], t["weight"], t["pieces"], cut),
    )


def norms(numbers: Numbers, rows: int, hidden: int) -> Iterator[Case]:
    norm = {"weight": numbers(hidden), "shift": numbers(hidden)}
    yield Case(
        "layer norm",
        {"x": numbers(rows, hidden), "out": numbers.empty(rows, hidden), **norm},
        ("out",),
        lambda t: layer_norm(t["x"], (t["weight"], t["shift"], EPS), t["out"]),
    )
    wide = Numbers(torch.float32, numbers.generator)
    tensors = {
        "pieces": wide(8, rows, hidden),
        "bias": numbers(hidden),
        "residual": numbers(rows, hidden),
        "out": numbers.empty(rows, hidden),
        "normed": numbers.empty(rows, hidden),
        **norm,
    }
    yield Case("sum of pieces and norm", tensors, ("out", "normed"), _add_pieces)
    own = {"pieces": wide(4, rows, hidden), "out": torch.empty(rows, hidden)}
    yield Case("sum of pieces", own, ("out",), _sum_pieces)


def _sum_pieces(t: Tensors) -> None:
    t["out"].copy_(sum_pieces(t["pieces"].clone()))


def _add_pieces(t: Tensors) -> None:
    norm = (t["weight"], t["shift"], EPS)
    add_pieces(t["pieces"], t["bias"], t["residual"], t["out"], norm, t["normed"])


def attentions(
    numbers: Numbers, cache_dtype: torch.dtype, heads: int, head_dim: int, lens: list[range]
) -> Iterator[Case]:
    """Sequences, each with the rows of its range, over a cache of earlier K and V."""
    blocks = sum(-(-rows.stop // BLOCK_SIZE) for rows in lens)
    order = torch.randperm(blocks, generator=numbers.generator).tolist()
    tables = [[order.pop() for _ in range(-(-rows.stop // BLOCK_SIZE))] for rows in lens]
    chunks = [Chunk(t, rows.start, rows.stop) for t, rows in zip(tables, lens, strict=True)]
    shape = BlockShape(heads, BLOCK_SIZE, head_dim)
    cache = PagedFormat().allocate(blocks, shape, cache_dtype, torch.device("cpu"))
    for part in cache[:2]:
        values = torch.randn(part.shape, generator=numbers.generator)
        part.copy_(values * (40 if cache_dtype == torch.int8 else 1))
    scales = {"k_scales": cache.k_scales, "v_scales": cache.v_scales}
    for scale in (part for part in scales.values() if part is not None):
        scale.copy_(torch.rand(scale.shape, generator=numbers.generator) / 40)
    rows = sum(len(chunk) for chunk in lens)
    tensors = {
        "qkv": numbers(rows, 3, heads, head_dim),
        "k": cache.k,
        "v": cache.v,
        "out": numbers.empty(rows, heads * head_dim).zero_(),  # `store` leaves it as it is
        **{name: part for name, part in scales.items() if part is not None},
    }
    longest = max(rows.stop for rows in lens)

    def store(t: Tensors) -> None:
        plan = device_plan(chunks, BLOCK_SIZE, t["qkv"].device)
        rotary = Rotary.make(head_dim // 4, longest, t["qkv"].device)
        store_kv(t["qkv"], rotary, _cache(t), plan)

    def run(t: Tensors) -> None:
        plan = device_plan(chunks, BLOCK_SIZE, t["qkv"].device)
        attend(t["qkv"], _cache(t), plan, head_dim**-0.5, t["out"], partials(plan, t["qkv"]))

    kind = f"cache {str(cache_dtype).removeprefix('torch.')}, head size {head_dim}"
    yield Case(f"rotary and store, {kind}", tensors, (), store)
    yield Case(f"attention, {kind}", tensors, ("out",), run)


def _cache(t: Tensors) -> PagedCache:
    return PagedCache(t["k"], t["v"], t.get("k_scales"), t.get("v_scales"))


def partials(plan: DevicePlan, qkv: Tensor) -> Tensor:
    """Memory for `attend`, poisoned."""
    _, _, heads, head_dim = qkv.shape
    size = partials_bytes(plan.limits, heads, head_dim) // 4
    return torch.full((size,), float("nan"), device=qkv.device)


def reads(numbers: Numbers) -> Iterator[Case]:
    x = torch.randint(-1000, 1000, (100_003,), dtype=torch.int32, generator=numbers.generator)
    out = torch.empty(-(-len(x) // 4096))

    def run(t: Tensors) -> None:
        t["out"].copy_(read_sums(t["x"], 4096))

    yield Case("reading", {"x": x, "out": out}, ("out",), run)


def all_cases(dtype: torch.dtype, is_full: bool) -> Iterator[Case]:
    """Odd sizes, tails that are masked, blocks in disorder."""
    numbers = Numbers(dtype, torch.Generator().manual_seed(0))
    for rows in (1, 7, 33, 130, 600) if is_full else (3,):
        yield from products(numbers, rows, *((1000, 1544) if is_full else (72, 136)))
    yield from norms(numbers, 5, 6144 if is_full else 96)
    lens = [range(0, 1), range(500, 501), range(290, 298), range(0, 37), range(130, 530)]
    if not is_full:
        lens = [range(0, 1), range(20, 23), range(3, 40)]
    for head_dim in (64, 256) if is_full else (16,):
        for cache_dtype in (dtype, torch.int8):
            yield from attentions(numbers, cache_dtype, 3, head_dim, lens)
    yield from reads(numbers)
