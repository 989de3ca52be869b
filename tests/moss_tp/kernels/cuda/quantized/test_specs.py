"""What is compiled ahead of time is what the wrappers launch."""

import pytest
import torch

from moss_tp.kernels.cuda.linear.cut import Cut, num_pieces
from moss_tp.kernels.cuda.linear.specs import LEAVES
from moss_tp.kernels.cuda.quantized import arrange, gemm
from moss_tp.kernels.cuda.quantized.pack import WORD, Form, PackedWeight, pack
from moss_tp.kernels.cuda.quantized.specs import GROUP, HIDDEN, INNER, specs
from moss_tp.kernels.cuda.quantized.tiles import row_buckets
from moss_tp.kernels.cuda.runtime.source import Source
from tests.moss_tp.kernels.cuda.linear.test_specs import empty
from tests.moss_tp.kernels.cuda.quantized.weights import Case
from tests.moss_tp.kernels.cuda.recorded import assert_compiled, record

KERNELS = (
    (gemm, "quantized_gemm_kernel"),
    (gemm, "quantized_pieces_kernel"),
    (arrange, "arrange_kernel"),
)


def packed(bits: int, outputs: int, cut: Cut, dtype: torch.dtype) -> PackedWeight:
    form = pack(Case(bits, 2 * GROUP, GROUP).weight(8, dtype)).form  # whatever the sizes
    inputs = cut.inputs
    words = empty(inputs // form.depth, outputs, form.plane, dtype=torch.int16)
    scales = empty(inputs // GROUP, outputs, dtype=torch.int32)
    return PackedWeight(words, scales, None, cut, form, dtype)


def launches(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, cc: int) -> list[Source]:
    monkeypatch.setattr(gemm, "IS_INTERPRETER", False)
    monkeypatch.setattr(gemm, "capability", lambda x: cc)
    found = record(monkeypatch, cc, *KERNELS)
    mid, outputs = HIDDEN + INNER, 3 * HIDDEN + INNER
    cut = Cut(LEAVES, HIDDEN // LEAVES, INNER // LEAVES)
    for bits in (4, 8):
        first = packed(bits, outputs, Cut(1, HIDDEN), dtype)
        second = packed(bits, HIDDEN, cut, dtype)
        for rows in (*row_buckets(cc), 5000):
            x, wide = empty(rows, HIDDEN, dtype=dtype), empty(rows, mid, dtype=dtype)
            qkv = empty(rows, 3 * HIDDEN, dtype=dtype)
            gemm.multiply(x, first, empty(outputs, dtype=dtype), qkv, wide[:, HIDDEN:])
            pieces = empty(num_pieces(LEAVES, rows), rows, HIDDEN, dtype=torch.float32)
            gemm.multiply_pieces(wide, second, pieces)
            order = empty(mid, dtype=torch.int32)
            arrange.arrange(wide, order, empty(rows, mid, dtype=dtype))
    return found


@pytest.mark.parametrize("cc", [80, 86, 90, 100])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_all_that_is_launched(dtype: torch.dtype, cc: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = launches(monkeypatch, dtype, cc)
    own = specs(dtype, 256, cc)
    assert_compiled(own, found, cc)
    assert all(list(spec.signature) == list(spec.function.arg_names) for spec in own)


def test_fp32_has_none() -> None:
    assert not specs(torch.float32, 256, 90)


def test_words_fill_their_bits() -> None:
    assert all(Form(bits, GROUP).depth * bits == Form(bits, GROUP).plane * WORD for bits in (4, 8))
