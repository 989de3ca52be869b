"""Packed weights are those of `dense()`, to the bit, in the order that they say."""

from dataclasses import replace

import pytest
import torch

from moss_tp.kernels.cuda.quantized.pack import CHUNK, can_pack, pack, unpacked
from tests.moss_tp.kernels.cuda.quantized.weights import CASES, ODD, Case
from tests.moss_tp.kernels.quantized_case import quantized_case

DTYPES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", [*CASES, *ODD], ids=str)
def test_values(case: Case, dtype: torch.dtype) -> None:
    weight = case.weight(40, dtype)
    packed, wanted = pack(weight), weight.dense().weight
    values = unpacked(packed)
    if packed.order is None:
        found = values[:, : case.inputs]
    else:
        places = packed.order >= 0
        found = torch.full_like(wanted, torch.nan)
        found[:, packed.order[places].long()] = values[:, places]
        assert int(places.sum()) == case.inputs  # each once
    assert torch.equal(found, wanted)
    assert values.isfinite().all()  # also of what fills tiles up: it is multiplied by zeros
    packed.words[0] ^= 1
    assert not torch.equal(unpacked(packed), values)


def test_in_chunks() -> None:
    case = Case(4, 2 * CHUNK + 128, 128)
    weight = case.weight(8, torch.float16)
    assert torch.equal(unpacked(pack(weight)), weight.dense().weight)


@pytest.mark.parametrize(
    ("case", "group", "inputs"),
    [
        (Case(4, 512, 128), 128, None),
        (Case(4, 512, 64), 64, None),
        (Case(4, 512, 32), 32, None),
        (Case(4, 512, -1), 512, None),
        (Case(4, 512, 256), 256, None),
        (Case(4, 520, 128), 128, None),  # the last tile is cut
        (Case(4, 512, 128, has_act_order=True), 128, 512),
        (Case(4, 512, 16), 32, 1024),  # each group filled up
        (Case(8, 512, 32), 32, None),
        (Case(8, 512, 64), 64, None),
    ],
)
def test_the_layout_follows_the_groups(case: Case, group: int, inputs: int | None) -> None:
    packed = pack(case.weight(8, torch.float16))
    assert packed.form.group == group
    assert (packed.order is None) == (inputs is None)
    assert packed.inputs == (inputs or case.inputs)
    assert packed.scales.shape == (-(-packed.size // group), 8)


def test_joined_inputs_of_one_group_each() -> None:
    """As out_proj and fc_out with groups of all inputs: a scale for what both sizes share."""
    first, second = (Case(4, size, -1).weight(16, torch.float16) for size in (256, 1024))
    both = first.concat_inputs(second)
    packed = pack(both)
    assert (packed.form.group, packed.order) == (256, None)
    assert torch.equal(unpacked(packed), both.dense().weight)


def test_what_is_not_packed() -> None:
    weight = Case(4, 256, 128).weight(8, torch.float16)
    assert can_pack(weight)
    assert not can_pack(replace(weight, dtype=torch.float32))
    many = quantized_case(4, 256, 8, 200, seed=0)  # about an input each: 32 times as large
    assert not can_pack(replace(many, dtype=torch.float16))


def test_groups_without_inputs() -> None:
    weight = Case(4, 256, 128).weight(8, torch.float16)
    more = replace(
        weight,
        scales=torch.cat((weight.scales[:1], weight.scales)),
        zeros=torch.cat((weight.zeros[:1], weight.zeros)),
        groups=weight.groups + 1,
    )
    assert torch.equal(unpacked(pack(more)), weight.dense().weight)
