"""Products, interpreted, against the reference; and an element's bits, whatever is beside it.

Tolerance: outputs of size ~1 are rounded to the dtype, half a unit of its last place apart at most.
"""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from moss_tp.kernels.cuda.linear import gemm, reference
from moss_tp.kernels.cuda.linear.cut import (
    FEW_ROWS,
    MANY_PIECES,
    MAX_PIECES,
    Cut,
    max_pieces_rows,
    num_pieces,
)
from moss_tp.kernels.cuda.linear.tiles import Tile, choose_tile
from moss_tp.kernels.cuda.runtime.launches import counted_launches
from moss_tp.kernels.cuda.runtime.switch import interpreted

TOLERANCES = {torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}
DTYPES = list(TOLERANCES)


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random).mul_(float(shape[-1] ** -0.5)).to(dtype)


def poisoned(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.full(shape, torch.nan, dtype=dtype)


def close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    tolerance = TOLERANCES[dtype]
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "inputs", "plain", "gelu"),
    [(1, 64, 70, 130), (17, 200, 0, 65), (40, 128, 64, 0), (130, 72, 3, 64)],
)
def test_whole_products(rows: int, inputs: int, plain: int, gelu: int, dtype: torch.dtype) -> None:
    """Outputs inside a wider tensor, whose other columns stay as they are."""
    weight, bias = draw(plain + gelu, inputs, dtype=dtype), draw(plain + gelu, dtype=dtype)
    wide = draw(rows, inputs + 8, dtype=dtype, seed=1) * inputs**0.5

    start = -(-plain // 8) * 8  # of the outputs with GELU: a multiple of 16 bytes

    def run(multiply: Callable[..., None]) -> Tensor:
        out = poisoned(rows, start + gelu + 3, dtype=dtype)
        parts = (out[:, :plain] if plain else None, out[:, start : start + gelu] if gelu else None)
        multiply(wide[:, 8:], weight, bias, *parts)
        assert out[:, plain:start].isnan().all() and out[:, start + gelu :].isnan().all()
        return torch.cat([part for part in parts if part is not None], 1)

    with interpreted():
        actual = run(gemm.multiply)
    close(actual, run(reference.multiply), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "cut", "outputs"),
    [
        (3, Cut(1, 100, 200), 70),
        (3, Cut(2, 64, 128), 64),
        (17, Cut(4, 24, 72), 70),
        (33, Cut(8, 8, 40), 64),
    ],
)
@pytest.mark.parametrize("leaves", [1, 2])
def test_leaves(rows: int, cut: Cut, outputs: int, leaves: int, dtype: torch.dtype) -> None:
    """A piece each, or for each two, to the bit of the sum of both."""
    weight = draw(outputs, cut.inputs, dtype=dtype)
    x = draw(rows, cut.inputs, dtype=dtype, seed=1) * cut.inputs**0.5
    leaves = min(leaves, cut.leaves)

    def run(multiply: Callable[..., None], size: int = leaves) -> Tensor:
        pieces = poisoned(cut.leaves // size, rows, outputs, dtype=torch.float32)
        multiply(x, weight, pieces, cut)
        return pieces

    with interpreted():
        actual, single = run(gemm.multiply_pieces), run(gemm.multiply_pieces, 1)
    assert torch.equal(actual, single.view(-1, leaves, rows, outputs).sum(1))
    close(actual, run(reference.multiply_pieces), torch.float32)
    whole = reference._product(x, weight)
    close(actual.sum(0), whole, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_row_has_the_same_bits_whatever_is_beside_it(dtype: torch.dtype) -> None:
    """Alone, and among 16, 64, 200 and 600 rows: in every tile."""
    inputs, outputs, cut = 320, 64, Cut(2, 64, 96)
    weight, bias = draw(outputs, inputs, dtype=dtype), draw(outputs, dtype=dtype)
    x = draw(600, inputs, dtype=dtype, seed=1) * inputs**0.5

    def run(rows: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        whole = poisoned(len(rows), outputs, dtype=dtype)
        pieces = poisoned(2, len(rows), outputs, dtype=torch.float32)
        with interpreted():
            gemm.multiply(rows, weight, bias, whole)
            gemm.multiply_pieces(rows, weight, pieces, cut)
        return whole, pieces

    alone = [run(x[row : row + 1], weight) for row in (0, 15)]
    for count in (16, 64, 200, 600):
        whole, pieces = run(x[:count], weight)
        for row, (one, parts) in zip((0, 15), alone, strict=True):
            assert torch.equal(whole[row], one[0])
            assert torch.equal(pieces[:, row], parts[:, 0])
    backwards = run(x[:1].flip(1).contiguous(), weight.flip(1).contiguous())[1]
    assert not torch.equal(backwards.sum(0), alone[0][1].sum(0))  # a control: its order shows


def test_the_product_as_it_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the tile and the instruction that a GPU gets; sums of 300 products in fp32."""
    monkeypatch.setattr(gemm, "IS_INTERPRETER", False)
    monkeypatch.setattr(gemm, "_tile", _tile_of_a_gpu)
    x, weight, bias = draw(17, 300), draw(70, 300, seed=1) * 300**0.5, draw(70)
    wanted = F.linear(x.double(), weight.double(), bias.double()).float()
    out, pieces = poisoned(17, 70, dtype=x.dtype), poisoned(2, 17, 70, dtype=x.dtype)
    with interpreted():
        gemm.multiply(x, weight, bias, out)
        gemm.multiply_pieces(x, weight, pieces, Cut(4, 30, 45))
    torch.testing.assert_close(out, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pieces.sum(0) + bias, wanted, atol=1e-5, rtol=1e-5)
    gemm.multiply(x, weight, bias + 1e-3, out)
    assert not torch.allclose(out, wanted, atol=1e-5, rtol=1e-5)


def _tile_of_a_gpu(x: Tensor, outputs: int, pieces: int = 1) -> Tile:
    return choose_tile(len(x), outputs, pieces, x.dtype, 90)


@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"), [(130, 200, 70), (3, 128, 150), (128, 328, 128)]
)
def test_tiles_by_tma(
    rows: int, inputs: int, outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the last ones reach over the ends of rows, outputs and K: the same bits."""
    x, weight = draw(rows, inputs, dtype=torch.float16), draw(outputs, inputs, dtype=torch.float16)
    bias, tile = draw(outputs, dtype=torch.float16), Tile(128, 64, 64, 8, 3, is_bulk=True)
    cut = Cut(1, 64, 64) if inputs < 200 else Cut(2, 64, 0)

    def run(tile: Tile) -> list[Tensor]:
        monkeypatch.setattr(gemm, "_tile", lambda *_: tile)
        out = poisoned(rows, outputs, dtype=torch.float16)
        pieces = poisoned(1, rows, outputs, dtype=torch.float32)
        own = cut.inputs
        with interpreted():
            gemm.multiply(x, weight, bias, out)
            gemm.multiply_pieces(x[:, :own].contiguous(), weight[:, :own].contiguous(), pieces, cut)
        return [out, pieces]

    for by_tma, by_threads in zip(run(tile), run(tile.by_threads), strict=True):
        assert not by_tma.isnan().any() and torch.equal(by_tma, by_threads)


def test_tma_only_where_rows_are_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm, "capability", lambda x: 90)
    assert gemm._tile(torch.empty(600, 6144, dtype=torch.float16), 43008).is_bulk
    assert not gemm._tile(torch.empty(600, 6140, dtype=torch.float16), 43008).is_bulk
    gap = torch.empty(600, 6148, dtype=torch.float16)[:, :6144]
    assert not gemm._tile(gap, 43008).is_bulk
    assert not gemm._tile(torch.empty(100, 6144, dtype=torch.float16), 43008).is_bulk


def test_the_reference_hardly_depends_on_rows_either() -> None:
    weight, x = draw(70, 500), draw(300, 500, seed=1)
    outs = [poisoned(count, 70, dtype=torch.float32) for count in (1, 300)]
    for out in outs:
        gemm.multiply(x[: len(out)], weight, torch.zeros(70), out)
    assert torch.equal(outs[0][0], outs[1][0])


def test_what_does_not_fit_is_refused() -> None:
    x, weight, bias, out = draw(2, 64), draw(5, 64), draw(5), draw(2, 5)
    cases: list[tuple[Tensor, Tensor, Tensor, Tensor]] = [
        (x[:, :60], weight, bias, out),
        (x, weight[:, ::2], bias, out),
        (x, weight.T.contiguous().T, bias, out),
        (x, weight, bias[:4], out),
        (x, weight, bias, out[:, :4]),
        (x, weight, bias, out[:1]),
        (x.half(), weight, bias, out),
        (x, weight, bias, out.half()),
        (x.T.contiguous().T, weight, bias, out),
    ]
    for case in cases:
        with pytest.raises(ValueError):
            gemm.multiply(*case)
    own = Cut(4, 4, 12)
    for shape, cut in (((4, 2, 5), Cut(4, 4, 8)), ((1, 2, 5), own), ((3, 2, 5), own)):
        with pytest.raises(ValueError):
            gemm.multiply_pieces(x, weight, torch.zeros(shape), cut)
    for wrong in (torch.zeros(4, 2, 5, dtype=torch.float64), torch.zeros(4, 1, 5)):
        with pytest.raises(ValueError):
            gemm.multiply_pieces(x, weight, wrong, own)
    gemm.multiply_pieces(x, weight, torch.zeros(4, 2, 5), own)


def test_what_is_not_aligned_is_refused() -> None:
    """By the kernels, for which it would be compiled anew."""
    weight, bias, out = draw(8, 64), draw(8), draw(2, 8)
    pieces = torch.zeros(1, 2, 8)
    with interpreted():
        for start in (0, 1, 2, 4):
            x = draw(2, 68)[:, start : start + 64]
            is_aligned = start in (0, 4)
            with nullcontext() if is_aligned else pytest.raises(ValueError, match="begins"):
                gemm.multiply(x, weight, bias, out)
            with nullcontext() if is_aligned else pytest.raises(ValueError, match="begins"):
                gemm.multiply_pieces(x, weight, pieces, Cut(1, 16, 48))
        with pytest.raises(ValueError, match="begins"):
            gemm.multiply(x, weight, bias, draw(2, 9)[:, :1], draw(2, 9)[:, 1:8])
        with pytest.raises(ValueError, match="begins"):
            gemm.multiply(x, weight, draw(9)[1:], out)


def test_no_rows_are_no_launch() -> None:
    with counted_launches() as counts:
        gemm.multiply(draw(0, 64), draw(5, 64), draw(5), draw(0, 5))
        gemm.multiply_pieces(draw(0, 64), draw(5, 64), torch.zeros(1, 0, 5), Cut(1, 64))
        gemm.multiply(draw(1, 64), draw(5, 64), draw(5), draw(1, 5))
    assert counts == {"gemm": 1}


def test_pieces_are_few_where_rows_are_many() -> None:
    for leaves in (1, 2, 4, 8):
        for rows in (1, FEW_ROWS, FEW_ROWS + 1, 5000):
            count = num_pieces(leaves, rows)
            assert leaves in (count, 2 * count)
            assert count <= (MAX_PIECES if rows <= FEW_ROWS else MANY_PIECES)
            assert all(
                num_pieces(leaves, n) * n <= max_pieces_rows(leaves, rows) for n in (1, rows)
            )
    assert (num_pieces(8, 1), num_pieces(8, 2048), num_pieces(4, 2048)) == (8, 4, 4)
    assert max_pieces_rows(8, 100) == 8 * FEW_ROWS


def test_hopper_s_tiles_all_have_its_instruction() -> None:
    """wgmma multiplies 64 rows of the weight by 4 warps."""
    for rows in (1, 16, 17, 32, 64, 65, 128, 129, 512, 4096):
        for outputs in (64, 6144, 43008):
            tile: Tile = choose_tile(rows, outputs, 1, torch.float16, 90)
            assert tile.outputs % (16 * tile.warps) == 0
            assert tile.warps % 4 == 0
            assert tile.rows >= min(rows, 64)
