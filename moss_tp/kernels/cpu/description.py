"""Packed weights as JSON and tensors, so that they can be kept in a file without pickling.

Frozen dataclasses of KINDS, tuples, numbers, dtypes and multiply-adds; a tensor is its number.
"""

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from moss_tp.kernels.cpu.block import PackedBlock
from moss_tp.kernels.cpu.linear.pack import PackedWeight
from moss_tp.kernels.cpu.linear.quantized_pack import QuantizedPanels, Runs
from moss_tp.kernels.cpu.microkernel import mul_add

KINDS: dict[str, type] = {
    kind.__name__: kind for kind in (PackedBlock, PackedWeight, QuantizedPanels, Runs)
}
MUL_ADDS: dict[str, Any] = {
    name: getattr(mul_add, name)
    for name in (
        "FMA_X8_FP32",
        "FMA_X8_BF16",
        "FMA_X8_FP16",
        "FMA_X16_FP32",
        "FMA_X16_FP16",
        "DOT_X16_BF16",
        "AMX_X16_BF16",
    )
}
_NAMES = {id(value): name for name, value in MUL_ADDS.items()}


def describe(value: Any, tensors: list[Tensor]) -> Any:
    """JSON of `value`; its tensors are appended to `tensors`. Raises TypeError for a value of
    another kind."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return {"tensor": len(tensors) - 1}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, tuple):
        return [describe(item, tensors) for item in value]
    if id(value) in _NAMES:
        return {"mul_add": _NAMES[id(value)]}
    kind = type(value).__name__
    if KINDS.get(kind) is not type(value):
        raise TypeError(f"a {kind} cannot be described")
    own = {field.name: getattr(value, field.name) for field in fields(KINDS[kind])}
    return {"kind": kind, **{name: describe(item, tensors) for name, item in own.items()}}


def rebuild(description: Any, tensors: tuple[Tensor, ...]) -> Any:
    """The value that `describe` described, over `tensors`. Raises ValueError for a description of
    nothing."""
    if isinstance(description, list):
        return tuple(rebuild(item, tensors) for item in description)
    if not isinstance(description, dict):
        return description
    try:
        if "kind" in description:
            parts = {name: rebuild(item, tensors) for name, item in description.items()}
            return KINDS[parts.pop("kind")](**parts)
        if "tensor" in description:
            return tensors[description["tensor"]]
        if "dtype" in description:
            return getattr(torch, description["dtype"])
        return MUL_ADDS[description["mul_add"]]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"not packed weights: {error!r}") from error
