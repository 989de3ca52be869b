"""The same work by cuBLAS and by torch's attention, in graphs, beside ours."""

import torch

from moss_tp.gpu_check.check import Check
from moss_tp.gpu_check.parts.limits import rates_of
from moss_tp.gpu_check.tools.cases import BLOCK_SIZE, partials
from moss_tp.gpu_check.tools.plans import Chunk, device_plan
from moss_tp.gpu_check.tools.shapes import MOSS, TINY, Shape
from moss_tp.gpu_check.verdict import Verdict
from moss_tp.hardware.timing import graph_s
from moss_tp.kernels.cuda.attention.attend import attend
from moss_tp.kernels.cuda.attention.cache import PagedFormat
from moss_tp.kernels.cuda.linear.cut import Cut, num_pieces
from moss_tp.kernels.cuda.linear.gemm import multiply, multiply_pieces
from moss_tp.kernels.kv_cache import BlockShape

ROWS = (1, 8, 32, 128, 1024)
ATTENTIONS = ((8, 2048), (32, 1024), (128, 256))  # batch and context
ATTENTION_BAR = 0.85


@torch.inference_mode()
def run(check: Check) -> None:
    shape = MOSS if check.is_full else TINY
    dtype = torch.float16 if check.is_full else torch.float32
    for rows in ROWS if check.is_full else (2,):
        _first(check, shape, dtype, rows)
        _second(check, shape, dtype, rows)
    for batch, context in ATTENTIONS if check.is_full else ((2, 40),):
        _attention(check, shape, dtype, batch, context)


def _first(check: Check, shape: Shape, dtype: torch.dtype, rows: int) -> None:
    """`normed @ [qkv | fc_in]`, ours with bias and GELU."""
    hidden, device = shape.hidden, check.device
    x = torch.randn(rows, hidden, dtype=dtype, device=device)
    weight = torch.randn(7 * hidden, hidden, dtype=dtype, device=device)
    bias = torch.randn(7 * hidden, dtype=dtype, device=device)
    plain, gelu, out = (
        torch.empty(rows, n * hidden, dtype=dtype, device=device) for n in (3, 4, 7)
    )
    own = graph_s(lambda: multiply(x, weight, bias, plain, gelu), device)
    peer = graph_s(lambda: torch.mm(x, weight.T, out=out), device)
    _compare(check, f"first product, {rows} rows", own, peer, "cuBLAS")


def _second(check: Check, shape: Shape, dtype: torch.dtype, rows: int) -> None:
    """`[attention | gelu] @ [out | fc_out]`, ours in leaves."""
    hidden, inputs, device = shape.hidden, 5 * shape.hidden, check.device
    x = torch.randn(rows, inputs, dtype=dtype, device=device)
    weight = torch.randn(hidden, inputs, dtype=dtype, device=device)
    out = torch.empty(rows, hidden, dtype=dtype, device=device)
    leaves = shape.config.num_leaves
    cut = Cut(leaves, hidden // leaves, 4 * hidden // leaves)
    pieces = torch.empty(num_pieces(leaves, rows), rows, hidden, device=device)
    own = graph_s(lambda: multiply_pieces(x, weight, pieces, cut), device)
    peer = graph_s(lambda: torch.mm(x, weight.T, out=out), device)
    _compare(check, f"second product, {rows} rows", own, peer, "cuBLAS")


def _attention(check: Check, shape: Shape, dtype: torch.dtype, batch: int, context: int) -> None:
    """A decode of each sequence, beside how fast the card reads K and V."""
    heads, head_dim, device = shape.heads, shape.head_dim, check.device
    blocks = -(-context // BLOCK_SIZE)
    order = torch.randperm(batch * blocks).view(batch, blocks).tolist()
    chunks = [Chunk(table, context - 1, context) for table in order]
    plan = device_plan(chunks, BLOCK_SIZE, device)
    block = BlockShape(heads, BLOCK_SIZE, head_dim)
    cache = PagedFormat().allocate(batch * blocks, block, dtype, device)
    for part in (cache.k, cache.v):
        part.normal_()
    qkv = torch.randn(batch, 3, heads, head_dim, dtype=dtype, device=device)
    out = torch.empty(batch, heads * head_dim, dtype=dtype, device=device)
    memory, scale = partials(plan, qkv), head_dim**-0.5
    own = graph_s(lambda: attend(qkv, cache, plan, scale, out, memory), device)
    q, k, v = (
        torch.randn(batch, heads, n, head_dim, dtype=dtype, device=device)
        for n in (1, context, context)
    )
    attention = torch.nn.functional.scaled_dot_product_attention
    peer = graph_s(lambda: attention(q, k, v), device)
    name = f"attention, batch {batch}, context {context}"
    _compare(check, name, own, peer, "torch")
    rate = 2 * batch * context * heads * head_dim * dtype.itemsize / own
    limit, bar = rates_of(check).read_bytes_s / 1e9, ATTENTION_BAR if check.is_full else None
    check.verdict(Verdict(f"{name}, reading", rate / 1e9, "GB/s", limit, bar))


def _compare(check: Check, name: str, own_s: float, peer_s: float, peer: str) -> None:
    note = f"{own_s * 1e6:.1f} µs, {peer} {peer_s * 1e6:.1f}"
    check.verdict(Verdict(f"{name}, speed beside {peer}'s", peer_s / own_s, note=note))
