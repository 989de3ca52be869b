"""An independent reading of the published layout, by its definition, in numpy.

w = scales[g] * (q - (zero + 1))        g = g_idx[row]
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.moss_tp.quantized_moss import PARTS, unpack

Floats = npt.NDArray[np.float32]


def read_linear(tensors: Mapping[str, Any], bits: int) -> Floats:
    """The weight `(outputs, inputs)` of one linear's `qweight`, `qzeros`, `scales`, `g_idx`."""
    levels = unpack(tensors["qweight"].T, bits).T  # packed along inputs
    zeros = unpack(tensors["qzeros"], bits) + 1
    groups = tensors["g_idx"]
    scales = tensors["scales"].astype(np.float32)
    weight: Floats = scales[groups] * (levels - zeros[groups]).astype(np.float32)
    return weight.T


def tensors_of(directory: Path) -> dict[str, Tensor]:
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    tensors = {}
    for name, file in index["weight_map"].items():
        tensors[name] = load_file(directory / file)[name]
    return tensors


def write_dense(quantized: Path, source: Path, target: Path, bits: int) -> Path:
    """A dense model of the values of a quantized one of `source`, as they are read here."""
    tensors = tensors_of(quantized)
    dense = {name: tensor for name, tensor in tensors.items() if ".h." not in name}
    for name, tensor in tensors.items():
        prefix, _, part = name.rpartition(".")
        if part == "qweight":
            linear = {p: tensors[f"{prefix}.{p}"].numpy() for p in PARTS}
            dense[f"{prefix}.weight"] = torch.from_numpy(read_linear(linear, bits)).contiguous()
        elif ".h." in name and part in ("weight", "bias"):
            dense[name] = tensor
    target.mkdir()
    torch.save(dense, target / "pytorch_model.bin")
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(source / name, target / name)
    return target
