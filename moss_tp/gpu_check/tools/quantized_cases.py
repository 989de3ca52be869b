"""Products with weights of 4 and 8 bits on random arguments, for the comparison with references."""

from collections.abc import Iterator

import torch

from moss_tp.gpu_check.tools.cases import LEAVES, Case, Numbers, Tensors
from moss_tp.kernels.cuda.linear.cut import Cut, num_pieces
from moss_tp.kernels.cuda.quantized.arrange import arrange
from moss_tp.kernels.cuda.quantized.gemm import multiply, multiply_pieces
from moss_tp.kernels.cuda.quantized.pack import DTYPES, PackedWeight, pack
from moss_tp.kernels.quantized import QuantizedWeight

# Dtype, bits, group size, whether groups come in any order, and numbers of rows. Few, for each of
# them is compiled when it is launched.
KINDS = (
    (torch.float16, 4, 128, False, (1, 600)),
    (torch.float16, 4, 50, True, (33,)),
    (torch.float16, 8, 64, True, (130,)),
    (torch.bfloat16, 4, 32, True, (33,)),
)


def quantized_cases(numbers: Numbers, is_full: bool) -> Iterator[Case]:
    """Nothing in fp32, for which there are no kernels."""
    outputs, inputs = (1000, 1544) if is_full else (72, 136)
    for dtype, bits, size, has_act_order, counts in KINDS:
        if dtype == numbers.dtype:
            cut = Cut(LEAVES, 8, inputs // LEAVES - 8)
            weight = pack(_weight(numbers, bits, outputs, inputs, size, has_act_order), cut)
            for rows in counts if is_full else (3,):
                yield from _products(numbers, weight, rows)
    if numbers.dtype in DTYPES:
        yield _arranged(numbers)


def _weight(
    numbers: Numbers, bits: int, outputs: int, inputs: int, size: int, has_act_order: bool
) -> QuantizedWeight:
    groups = (torch.arange(inputs) // size).int()
    if has_act_order:
        groups = groups[torch.randperm(inputs, generator=numbers.generator)]
    count = -(-inputs // size)
    words = (inputs * bits // 32, outputs)
    scale = 4 * inputs**-0.5 / 2**bits
    return QuantizedWeight(
        packed=torch.randint(-(2**31), 2**31, words, generator=numbers.generator).int(),
        scales=(torch.rand(count, outputs, generator=numbers.generator) * scale).half(),
        zeros=torch.randint(1, 2**bits + 1, (count, outputs), generator=numbers.generator).short(),
        groups=groups,
        bits=bits,
        dtype=numbers.dtype,
    )


def _products(numbers: Numbers, weight: PackedWeight, rows: int) -> Iterator[Case]:
    outputs, inputs = weight.outputs, weight.inputs
    plain = outputs // 2 // 8 * 8
    kind = f"int{weight.form.bits}, groups of {weight.form.group}, {rows} rows"
    shared = {"x": numbers(rows, inputs), "words": weight.words, "scales": weight.scales}

    def own(t: Tensors) -> PackedWeight:
        return PackedWeight(t["words"], t["scales"], None, weight.cut, weight.form, weight.dtype)

    first = {
        **shared,
        "bias": numbers(outputs),
        "plain": numbers.empty(rows, plain),
        "gelu": numbers.empty(rows, outputs - plain),
    }
    yield Case(
        f"product, {kind}",
        first,
        ("plain", "gelu"),
        lambda t: multiply(t["x"], own(t), t["bias"], t["plain"], t["gelu"]),
    )
    second = {**shared, "pieces": torch.empty(num_pieces(LEAVES, rows), rows, outputs)}
    yield Case(
        f"leaves of a product, {kind}",
        second,
        ("pieces",),
        lambda t: multiply_pieces(t["x"], own(t), t["pieces"]),
    )


def _arranged(numbers: Numbers) -> Case:
    order = torch.randint(-1, 500, (1300,), generator=numbers.generator).int()
    tensors = {"x": numbers(7, 500), "order": order, "out": numbers.empty(7, 1300)}
    return Case(
        "inputs in another order",
        tensors,
        ("out",),
        lambda t: arrange(t["x"], t["order"], t["out"]),
    )
