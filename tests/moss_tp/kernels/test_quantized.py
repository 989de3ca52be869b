"""The quantized weight type: what its values are."""

import pytest
import torch

from moss_tp.kernels.base import DenseWeight
from moss_tp.kernels.quantized import QuantizedWeight, concat_inputs, rounded_to_8_bits
from tests.moss_tp.kernels.quantized_case import quantized_case


@pytest.mark.parametrize("bits", [4, 8])
def test_a_value_is_its_scale_times_level_less_zero(bits: int) -> None:
    weight = quantized_case(bits, 64, 5, 3, seed=bits)
    dense = weight.dense().weight
    assert dense.shape == (weight.outputs, weight.inputs) == (5, 64)
    per_word = 32 // bits
    for i, o in ((0, 0), (7, 2), (33, 4), (63, 1)):
        word = int(weight.packed[i // per_word, o]) % 2**32
        level = (word >> bits * (i % per_word)) % 2**bits
        group = int(weight.groups[i])
        value = float(weight.scales[group, o]) * (level - int(weight.zeros[group, o]))
        assert float(dense[o, i]) == pytest.approx(value, rel=1e-6)


def test_the_product_of_joined_weights_is_the_sum_of_both_products() -> None:
    one, two = quantized_case(4, 64, 6, 2, seed=1), quantized_case(4, 32, 6, 5, seed=2)
    x, y = torch.rand(3, 64), torch.rand(3, 32)
    joined = one.concat_inputs(two).dense()
    both = x @ one.dense().weight.T + y @ two.dense().weight.T
    product = torch.cat((x, y), 1) @ joined.weight.T
    torch.testing.assert_close(product, both, rtol=1e-4, atol=1e-4)
    assert one.bias is not None and two.bias is not None and joined.bias is not None
    torch.testing.assert_close(joined.bias, one.bias + two.bias)


def test_weights_of_other_bits_are_not_joined() -> None:
    with pytest.raises(ValueError, match="8 bits beside 4"):
        quantized_case(4, 64, 6, 2, seed=1).concat_inputs(quantized_case(8, 64, 6, 2, seed=1))


def test_weights_of_any_kinds_are_joined_as_dense_ones() -> None:
    """As the back ends join out_proj and fc_out, of which one may not be quantized."""
    four, eight = quantized_case(4, 64, 6, 2, seed=1), quantized_case(8, 32, 6, 5, seed=2)
    dense = eight.dense()
    x, y = torch.rand(3, 64), torch.rand(3, 32)
    both = x @ four.dense().weight.T + y @ dense.weight.T
    for other in (eight, dense):
        joined = concat_inputs(four, other)
        assert isinstance(joined, DenseWeight)
        # Sums of 96 in another order: where they cancel, more than a few units of the last place.
        product = torch.cat((x, y), 1) @ joined.weight.T
        torch.testing.assert_close(product, both, rtol=1e-4, atol=1e-4)
    assert isinstance(concat_inputs(four, quantized_case(4, 32, 6, 3, seed=3)), QuantizedWeight)


def test_rounding_takes_the_nearest_level() -> None:
    """Of more outputs than are rounded at a time, one of them all zeros."""
    weight = torch.randn(5000, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    weight[7] = 0
    bias = torch.arange(5000).bfloat16()
    rounded = rounded_to_8_bits(DenseWeight(weight, bias))
    dense = rounded.dense()
    assert dense.bias is bias and dense.weight.dtype == torch.bfloat16
    steps = rounded.scales[0].float()[:, None]
    levels = rounded.levels().T.float() - 128
    # Half a step, and what the outermost level is off where its scale is rounded to fp16.
    assert ((levels * steps - weight.float()).abs() <= steps * 0.57).all()
    assert (levels.abs().amax(1)[torch.arange(5000) != 7] == 127).all()
    assert not dense.weight[7].any()


def test_inputs_that_fill_no_words_are_not_rounded() -> None:
    with pytest.raises(ValueError, match="6 inputs"):
        rounded_to_8_bits(DenseWeight(torch.ones(3, 6)))
