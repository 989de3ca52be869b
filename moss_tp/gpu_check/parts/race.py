"""Our products with 4-bit weights beside the package humming-kernels', where that is installed.

It compiles at run time and rounds its own way, so it is a peer and no back end.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from moss_tp.gpu_check.check import Check
from moss_tp.gpu_check.tools.shapes import MOSS
from moss_tp.gpu_check.verdict import Verdict
from moss_tp.hardware.timing import graph_s
from moss_tp.kernels.cuda.linear.cut import Cut, num_pieces
from moss_tp.kernels.cuda.quantized.gemm import multiply, multiply_pieces
from moss_tp.kernels.cuda.quantized.pack import PackedWeight, pack
from moss_tp.kernels.quantized import QuantizedWeight

PACKAGE = "humming"
ROWS = (1, 8, 32)
GROUP, BITS = 128, 4
LAUNCHES = 4  # in a graph
BAR = 0.9


@torch.inference_mode()
def run(check: Check) -> None:
    if check.device.type != "cuda" or find_spec(PACKAGE) is None:
        check.figure("not raced", f"{PACKAGE} is not installed, or there is no GPU")
        return
    hidden = MOSS.hidden
    for name, outputs, inputs in (
        ("first", 7 * hidden, hidden),
        ("second", hidden, 5 * hidden),
    ):
        own, peer = _own(outputs, inputs, check.device), _peer(outputs, inputs, check.device)
        for rows in ROWS:
            x = torch.randn(rows, inputs, dtype=torch.float16, device=check.device)
            own_s = _seconds(own(x), check.device)
            peer_s = _seconds(lambda: peer(x), check.device)  # noqa: B023
            note = f"{own_s * 1e6:.1f} µs, {PACKAGE} {peer_s * 1e6:.1f}"
            title = f"{name} product, int4, {rows} rows, speed beside {PACKAGE}'s"
            check.verdict(Verdict(title, peer_s / own_s, bar=BAR, note=note))


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    def several() -> None:
        for _ in range(LAUNCHES):
            run()

    return graph_s(several, device) / LAUNCHES


def _own(
    outputs: int, inputs: int, device: torch.device
) -> Callable[[Tensor], Callable[[], object]]:
    leaves = MOSS.config.num_leaves if inputs > MOSS.hidden else 1
    weight = _random(outputs, inputs, device, leaves)
    bias = torch.zeros(outputs, dtype=torch.float16, device=device)

    def prepared(x: Tensor) -> Callable[[], object]:
        if leaves > 1:
            pieces = torch.empty(num_pieces(leaves, len(x)), len(x), outputs, device=device)
            return lambda: multiply_pieces(x, weight, pieces)
        out = torch.empty(len(x), outputs, dtype=torch.float16, device=device)
        return lambda: multiply(x, weight, bias, out)

    return prepared


def _random(outputs: int, inputs: int, device: torch.device, leaves: int) -> PackedWeight:
    """Of attention, and of four times as many inner columns, where it has leaves."""
    words, groups = (inputs * BITS // 32, outputs), (inputs // GROUP, outputs)
    weight = QuantizedWeight(
        packed=torch.randint(-(2**31), 2**31, words, dtype=torch.int32, device=device),
        scales=torch.rand(groups, device=device).half() * (inputs**-0.5 / 4),
        zeros=torch.randint(1, 2**BITS + 1, groups, dtype=torch.int16, device=device),
        groups=(torch.arange(inputs, device=device) // GROUP).int(),
        bits=BITS,
        dtype=torch.float16,
    )
    cut = Cut(leaves, inputs // 5 // leaves, inputs // 5 * 4 // leaves)
    return pack(weight, cut if leaves > 1 else None)


def _peer(outputs: int, inputs: int, device: torch.device) -> Any:
    from humming.layer import HummingLayer  # type: ignore[import-not-found]

    layer = HummingLayer(
        shape_n=outputs,
        shape_k=inputs,
        weight_config={"dtype": "uint4", "group_size": GROUP, "has_zero_point": True},
        torch_dtype=torch.float16,
    ).to(device)
    dense = torch.randn(outputs, inputs, dtype=torch.float16, device=device)
    layer.load_from_unquantized(dense)
    layer.transform()
    return layer
