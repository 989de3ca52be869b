"""Each kernel on this device against its reference on the CPU, over outputs that hold NaN."""

from collections.abc import Iterator
from math import inf, isnan

import torch
from torch import Tensor

from moss_tp.gpu_check.check import Check
from moss_tp.gpu_check.tools.cases import Case, Numbers, Tensors, all_cases
from moss_tp.gpu_check.tools.quantized_cases import quantized_cases
from moss_tp.gpu_check.verdict import Verdict

# Of the difference's norm in the reference's. fp32 is multiplied in full, not as tf32.
BARS = {torch.float16: 2e-3, torch.bfloat16: 1.5e-2, torch.float32: 1e-5}


def run(check: Check) -> None:
    for dtype, bar in BARS.items():
        if not check.is_full and dtype == torch.bfloat16:
            continue
        worst, name, count = 0.0, "", 0
        for case in _cases(dtype, check.is_full):
            error, count = difference(case, check.device), count + 1
            check.figure(f"{dtype}: {case.name}", error)
            if error >= worst:
                worst, name = error, case.name
        note = f"the worst of {count}: {name}"
        text = f"relative error in {str(dtype).removeprefix('torch.')}"
        check.verdict(Verdict(text, worst, bar=bar, sense="at most", note=note))


def _cases(dtype: torch.dtype, is_full: bool) -> Iterator[Case]:
    yield from all_cases(dtype, is_full)
    numbers = Numbers(dtype, torch.Generator().manual_seed(1))
    yield from quantized_cases(numbers, is_full)


@torch.inference_mode()
def difference(case: Case, device: torch.device) -> float:
    """The largest relative difference of a tensor that the kernel may have written; infinite where
    one of them has a NaN."""
    expected, found = _copies(case, torch.device("cpu")), _copies(case, device)
    case.run(expected)
    case.run(found)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return max(_relative(found[name].cpu(), expected[name]) for name in expected)


def _copies(case: Case, device: torch.device) -> Tensors:
    copies = {name: tensor.to(device, copy=True) for name, tensor in case.tensors.items()}
    for name in case.outputs:
        copies[name].fill_(float("nan"))
    return copies


def _relative(found: Tensor, expected: Tensor) -> float:
    wide = expected.double()
    error = float((found.double() - wide).norm() / wide.norm().clamp_min(1e-12))
    return inf if isnan(error) else error
