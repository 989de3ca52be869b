"""LayerNorm and sums of pieces, interpreted, against the reference.

Tolerance: values of size ~3, rounded to the dtype; a value between two of its numbers may go to
either.
"""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from moss_tp.kernels.cuda.linear import norm
from moss_tp.kernels.cuda.linear.norm import Norm
from moss_tp.kernels.cuda.runtime.launches import counted_launches
from moss_tp.kernels.cuda.runtime.switch import interpreted
from tests.moss_tp.kernels.cuda.linear.test_gemm import DTYPES, draw, poisoned

TOLERANCES = {torch.float32: 4e-6, torch.bfloat16: 2**-6, torch.float16: 2**-9}


def weights(hidden: int, dtype: torch.dtype) -> Norm:
    return 1 + draw(hidden, dtype=dtype), draw(hidden, dtype=dtype, seed=1), 1e-5


def rows_of(count: int, hidden: int, dtype: torch.dtype, seed: int = 2) -> Tensor:
    """Rows whose means are far from 0."""
    random = torch.Generator().manual_seed(seed)
    return (torch.randn(count, hidden, generator=random) * 2 + 3).to(dtype)


def both(run: Callable[[], Tensor], dtype: torch.dtype) -> None:
    with interpreted():
        actual = run()
    tolerance = TOLERANCES[dtype]
    torch.testing.assert_close(actual, run(), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("count", "hidden"), [(1, 64), (3, 70), (2, 130)])
def test_layer_norm(count: int, hidden: int, dtype: torch.dtype) -> None:
    x = rows_of(count, hidden, dtype)

    def run() -> Tensor:
        out = poisoned(count, hidden, dtype=dtype)
        norm.layer_norm(x, weights(hidden, dtype), out)
        return out

    both(run, dtype)


@pytest.mark.parametrize("is_interpreted", [False, True])
def test_chosen_rows(is_interpreted: bool) -> None:
    """In any order, as often as they are named: each as among all rows, to the bit."""
    x, own = rows_of(6, 70, torch.float32), weights(70, torch.float32)
    index = torch.tensor([5, 0, 0, 3], dtype=torch.int32)

    def run() -> tuple[Tensor, Tensor]:
        outs = poisoned(4, 70, dtype=x.dtype), poisoned(6, 70, dtype=x.dtype)
        norm.layer_norm(x, own, outs[0], index)
        norm.layer_norm(x, own, outs[1])
        return outs

    if is_interpreted:
        with interpreted():
            chosen, every = run()
    else:
        chosen, every = run()
    assert torch.equal(chosen, every[index])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("has_residual", [True, False])
@pytest.mark.parametrize("num_pieces", [1, 3, 4, 8])
def test_sums_of_pieces(num_pieces: int, has_residual: bool, dtype: torch.dtype) -> None:
    pieces, bias = rows_of(num_pieces * 3, 70, torch.float32).view(-1, 3, 70), draw(70, dtype=dtype)

    def run() -> Tensor:
        out = rows_of(3, 70, dtype, seed=3) if has_residual else poisoned(3, 70, dtype=dtype)
        norm.add_pieces(pieces, bias, out if has_residual else None, out)
        return out

    both(run, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sum_with_its_norm_has_the_bits_of_one_after_the_other(dtype: torch.dtype) -> None:
    pieces = rows_of(6, 70, torch.float32).view(2, 3, 70)
    bias, residual, own = draw(70, dtype=dtype), rows_of(3, 70, dtype, seed=3), weights(70, dtype)
    outs = [poisoned(3, 70, dtype=dtype) for _ in range(4)]
    with interpreted():
        norm.add_pieces(pieces, bias, residual, outs[0], own, outs[1])
        norm.add_pieces(pieces, bias, residual, outs[2])
        norm.layer_norm(outs[2], own, outs[3])
    assert torch.equal(outs[0], outs[2])
    assert torch.equal(outs[1], outs[3])


@pytest.mark.parametrize("name", ["reference", "interpreted"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
def test_pieces_are_added_up_as_a_tree(count: int, name: str) -> None:
    """To the bit, both where bias and residual follow and where they do not."""
    pieces = rows_of(count * 3, 70, torch.float32).view(count, 3, 70) * 1e3

    def tree(parts: list[Tensor]) -> Tensor:
        pairs = [sum(parts[i : i + 2], torch.tensor(-0.0)) for i in range(0, len(parts), 2)]
        return parts[0] if len(parts) == 1 else tree(pairs)

    wanted, out = tree(list(pieces)), poisoned(3, 70, dtype=torch.float32)
    if count > 2:
        assert not torch.equal(tree(list(pieces[[1, 2, 0, *range(3, count)]])), wanted)
    with interpreted() if name == "interpreted" else nullcontext():
        norm.add_pieces(pieces, torch.zeros(70), None, out)
        assert torch.equal(norm.sum_pieces(pieces), wanted)
    assert torch.equal(out, wanted)


def test_what_does_not_fit_is_refused() -> None:
    x, own, out = draw(2, 16), weights(16, torch.float32), draw(2, 16)
    pieces, bias = torch.zeros(2, 2, 16), torch.zeros(16)
    refused: list[Callable[[], object]] = [
        lambda: norm.layer_norm(x, own, out[:1]),
        lambda: norm.layer_norm(x, own, out.half()),
        lambda: norm.layer_norm(x, weights(15, torch.float32), out),
        lambda: norm.layer_norm(x.T.contiguous().T, own, out),
        lambda: norm.layer_norm(x, own, out, torch.tensor([0, 1])),
        lambda: norm.layer_norm(x, own, out, torch.tensor([0], dtype=torch.int32)),
        lambda: norm.add_pieces(pieces[:, :1], bias, x, out),
        lambda: norm.add_pieces(torch.zeros(9, 2, 16), bias, x, out),
        lambda: norm.sum_pieces(torch.zeros(9, 2, 16)),
        lambda: norm.sum_pieces(pieces.double()),
        lambda: norm.add_pieces(pieces.half(), bias, x, out),
        lambda: norm.add_pieces(pieces, bias, x[:1], out),
        lambda: norm.add_pieces(pieces, bias, x, out, own),
        lambda: norm.add_pieces(pieces, bias, x, out, None, out),
    ]
    for call in refused:
        with pytest.raises(ValueError):
            call()


def test_launches() -> None:
    x, own, out = draw(2, 16), weights(16, torch.float32), draw(2, 16)
    with counted_launches() as counts:
        norm.layer_norm(x, own, out)
        norm.layer_norm(x[:0], own, out[:0])
        norm.add_pieces(torch.zeros(1, 2, 16), torch.zeros(16), x, out, own, x)
        norm.sum_pieces(torch.zeros(1, 2, 16))
        norm.sum_pieces(torch.zeros(2, 2, 16))
        norm.sum_pieces(torch.zeros(2, 0, 16))
    assert counts == {"norm": 1, "add_pieces": 1, "sum_pieces": 1}


def test_what_is_not_aligned_is_refused() -> None:
    """By the kernel: compiled anew, it might add up a row in another order."""
    x, own = rows_of(2, 64, torch.float32), weights(64, torch.float32)
    pieces = draw(1, 2, 64)
    wide = draw(140)
    with interpreted():
        for start in (0, 1, 2, 4):
            part = wide[start : start + 128].view(2, 64)
            with nullcontext() if start in (0, 4) else pytest.raises(ValueError, match="begins"):
                norm.layer_norm(part, own, x)
            with nullcontext() if start in (0, 4) else pytest.raises(ValueError, match="begins"):
                norm.add_pieces(pieces, own[1], part, x)
