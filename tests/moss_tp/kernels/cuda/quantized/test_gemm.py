"""Products with packed weights, interpreted, against the reference and the dense product.

Tolerances as in `linear.test_gemm`; the interpreter does not round outputs to bf16, it cuts off.
"""

from itertools import product

import pytest
import torch
from torch import Tensor

from moss_tp.kernels.cuda.linear import gemm as dense
from moss_tp.kernels.cuda.quantized import gemm
from moss_tp.kernels.cuda.quantized.arrange import arrange
from moss_tp.kernels.cuda.quantized.pack import PackedWeight, pack
from moss_tp.kernels.cuda.quantized.tiles import choose_tile, row_buckets
from moss_tp.kernels.cuda.runtime.launches import counted_launches
from moss_tp.kernels.cuda.runtime.switch import interpreted
from tests.moss_tp.kernels.cuda.linear.test_gemm import close, draw, poisoned
from tests.moss_tp.kernels.cuda.ordered_dot import ordered_dot
from tests.moss_tp.kernels.cuda.quantized.weights import CASES, ODD, Case, in_order

__all__ = ["ordered_dot"]
DTYPES = [torch.float16, torch.bfloat16]


def x_of(rows: int, inputs: int, dtype: torch.dtype) -> Tensor:
    x: Tensor = draw(rows, inputs, dtype=dtype, seed=1) * inputs**0.5
    return x


def whole(x: Tensor, weight: PackedWeight, bias: Tensor, plain: int) -> Tensor:
    outs = (
        poisoned(len(x), plain, dtype=x.dtype),
        poisoned(len(x), weight.outputs - plain, dtype=x.dtype),
    )
    gemm.multiply(x, weight, bias, *outs)
    return torch.cat(outs, 1)


def in_pieces(x: Tensor, weight: PackedWeight) -> Tensor:
    pieces = poisoned(weight.cut.leaves, len(x), weight.outputs, dtype=torch.float32)
    gemm.multiply_pieces(x, weight, pieces)
    return pieces


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("case", "rows"), [*((c, 3) for c in CASES), (ODD[0], 35), (ODD[1], 17)])
def test_products(case: Case, rows: int, dtype: torch.dtype) -> None:
    weight = case.weight(70, dtype)
    packed, x = pack(weight), x_of(rows, case.inputs, dtype)
    assert weight.bias is not None
    own = in_order(x, packed)
    with interpreted():
        found, pieces = whole(own, packed, weight.bias, 24), in_pieces(own, packed)
    close(found, whole(own, packed, weight.bias, 24), dtype)
    close(pieces, in_pieces(own, packed), torch.float32)
    outs = (poisoned(rows, 24, dtype=dtype), poisoned(rows, 46, dtype=dtype))
    dense.multiply(x, weight.dense().weight, weight.bias, *outs)
    close(found, torch.cat(outs, 1), dtype)
    packed.scales.add_(1 << 7)  # scales that are an eighth larger
    with interpreted(), pytest.raises(AssertionError):
        close(whole(own, packed, weight.bias, 24), torch.cat(outs, 1), dtype)


@pytest.mark.usefixtures("ordered_dot")
@pytest.mark.parametrize("case", [CASES[0], CASES[2], CASES[5]], ids=str)
def test_the_bits_are_the_dense_product_s(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where inputs keep their order: one order of K, and values that are rounded alike."""
    weight = case.weight(70, torch.float16)
    packed, x = pack(weight), x_of(3, case.inputs, torch.float16)
    monkeypatch.setattr(dense, "INTERPRETED_DEPTH", packed.form.depth)
    wanted = poisoned(1, 3, 70, dtype=torch.float32)
    with interpreted():
        dense.multiply_pieces(x, weight.dense().weight, wanted, packed.cut)
        assert torch.equal(in_pieces(x, packed), wanted)
        turned = x.flip(1).contiguous()
        assert not torch.equal(in_pieces(turned, packed), wanted)


@pytest.mark.usefixtures("ordered_dot")
def test_a_row_has_the_same_bits_whatever_is_beside_it() -> None:
    """Alone, and among 16, 33 and 130 rows: in every tile."""
    case = Case(4, 264, 64, has_act_order=True)
    weight = case.weight(40, torch.float16)
    assert weight.bias is not None
    packed, bias = pack(weight), weight.bias
    x = in_order(x_of(130, case.inputs, torch.float16), packed)

    def run(count: int) -> tuple[Tensor, Tensor]:
        rows = x[:count].contiguous()
        with interpreted():
            return whole(rows, packed, bias, 16)[0], in_pieces(rows, packed)[:, 0]

    alone = run(1)
    for count in (16, 33, 130):
        assert all(torch.equal(a, b) for a, b in zip(run(count), alone, strict=True))


def test_what_does_not_fit_is_refused() -> None:
    weight = Case(4, 128, 128).weight(8, torch.float16)
    assert weight.bias is not None
    packed, x, out = pack(weight), torch.ones(2, 128).half(), torch.ones(2, 8).half()
    for args in (
        (x[:, :120], packed, weight.bias, out),
        (x.bfloat16(), packed, weight.bias, out),
        (x, packed, weight.bias[:4], out),
        (x, packed, weight.bias, out[:, :4]),
        (x, packed, weight.bias, out[:1]),
        (x, packed, weight.bias, out.float()),
        (x.T.contiguous().T, packed, weight.bias, out),
    ):
        with pytest.raises(ValueError):
            gemm.multiply(*args)
    for shape in ((2, 2, 8), (1, 1, 8)):
        with pytest.raises(ValueError):
            gemm.multiply_pieces(x, packed, torch.zeros(shape))
    with pytest.raises(ValueError):
        gemm.multiply_pieces(x, packed, torch.zeros(1, 2, 8).double())


def test_no_rows_are_no_launch() -> None:
    weight = Case(4, 128, 128).weight(8, torch.float16)
    assert weight.bias is not None
    packed, none = pack(weight), torch.empty(0, 128).half()
    order = torch.arange(128, dtype=torch.int32)
    with counted_launches() as counts:
        gemm.multiply(none, packed, weight.bias, torch.empty(0, 8).half())
        gemm.multiply_pieces(none, packed, torch.empty(1, 0, 8))
        arrange(none, order, none)
    assert not counts


@pytest.mark.parametrize("size", [5, 1500])
def test_arrange(size: int) -> None:
    x = draw(3, 40, dtype=torch.float16)[:, 3:33]
    order = torch.randint(-1, 30, (size,), generator=torch.Generator().manual_seed(0)).int()
    wanted = torch.where(order >= 0, x[:, order.clamp_min(0).long()], 0)
    out = poisoned(3, size, dtype=torch.float16)
    arrange(x, order, out)
    assert torch.equal(out, wanted)
    out = poisoned(3, size, dtype=torch.float16)
    with interpreted():
        arrange(x, order, out)
    assert torch.equal(out, wanted) and not torch.equal(out.flip(1), wanted)
    for other, by in ((out[:2], order), (out, order.long()), (out.float(), order)):
        with pytest.raises(ValueError):
            arrange(x, by, other)


def test_hopper_s_tiles_all_have_its_instruction() -> None:
    """wgmma multiplies 64 rows of the weight by 4 warps."""
    for rows in (*row_buckets(90), 4096):
        for outputs, bits in product((64, 6144, 43008), (4, 8)):
            tile = choose_tile(rows, outputs, 1, bits, torch.float16, 90)
            assert tile.outputs % (16 * tile.warps) == 0
            assert tile.warps % 4 == 0
