"""Small random MOSS checkpoints in GPTQ's layout, and the same models unquantized.

Both by plain numpy from the published formula, w = scales[g] * (q - zero), g = g_idx[row]; nothing
of moss_tp is involved.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.support.tiny_moss import make_checkpoint

Array = npt.NDArray[Any]
BLOCK_LAYERS = ("attn.qkv_proj", "attn.out_proj", "mlp.fc_in", "mlp.fc_out")
PARTS = ("qweight", "qzeros", "scales", "g_idx")
VOCAB_SIZE = 280  # a whole number of words


@dataclass(frozen=True)
class Gptq:
    """How a checkpoint is quantized. `dense` layers are not; `biased` ones have a bias that the
    model does not ask for."""

    bits: int = 4
    group_size: int = 16
    act_order: bool = False
    is_symmetric: bool = False
    is_v2: bool = False
    borrows: bool = False  # as GPTQModel takes 1 from the zeros
    lm_head: bool = False
    dense: tuple[str, ...] = ()
    biased: tuple[str, ...] = ()
    zero_bias: bool = False

    @property
    def fields(self) -> dict[str, Any]:
        """As MOSS's own config.json has them."""
        return {"wbits": self.bits, "groupsize": self.group_size}

    @property
    def quantization_config(self) -> dict[str, Any]:
        """As GPTQModel and AutoGPTQ write it."""
        return {
            "quant_method": "gptq",
            "bits": self.bits,
            "group_size": self.group_size,
            "desc_act": self.act_order,
            "sym": self.is_symmetric,
            "lm_head": self.lm_head,
            "checkpoint_format": "gptq_v2" if self.is_v2 else "gptq",
            "pack_dtype": "int32",
            "meta": {"quantizer": [self.quantizer], "damp_percent": 0.05},
        }

    @property
    def quantizer(self) -> str:
        return "gptqmodel:7.7.0" if self.is_v2 or self.borrows else "auto_gptq:0.7.1"

    def layers(self, num_layers: int = 2) -> list[str]:
        """The quantized ones, by name."""
        names = [f"transformer.h.{n}.{name}" for n in range(num_layers) for name in BLOCK_LAYERS]
        names += ["lm_head"] if self.lm_head else []
        return [name for name in names if not name.endswith(self.dense or ("nothing",))]


def make_quantized(directory: Path, gptq: Gptq, *, seed: int = 0, **sizes: Any) -> Path:
    """Writes a quantized model directory, of one safetensors file; returns it."""
    make_checkpoint(directory, seed=seed, **{"vocab_size": VOCAB_SIZE, **sizes})
    tensors = read_tensors(directory)
    numbers = np.random.default_rng(seed)
    for layer in gptq.layers(sizes.get("layers", 2)):
        outputs, inputs = tensors.pop(f"{layer}.weight").shape
        tensors |= {
            f"{layer}.{part}": torch.from_numpy(array)
            for part, array in _random_layer(gptq, outputs, inputs, numbers).items()
        }
        if layer.endswith(gptq.biased or ("nothing",)):
            bias = np.zeros(outputs) if gptq.zero_bias else numbers.normal(0, 0.3, outputs)
            tensors[f"{layer}.bias"] = torch.from_numpy(bias.astype(np.float16))
    write_tensors(directory, tensors)
    change_config(directory, quantization_config=gptq.quantization_config)
    return directory


def make_dense(quantized: Path, directory: Path, gptq: Gptq, **sizes: Any) -> Path:
    """Writes the model of a quantized directory with fp32 weights; returns `directory`. Added
    biases are dropped: CodeGen has no place for them."""
    make_checkpoint(directory, **{"vocab_size": VOCAB_SIZE, **sizes})
    tensors = read_tensors(quantized)
    for layer in gptq.layers(sizes.get("layers", 2)):
        parts = {part: tensors.pop(f"{layer}.{part}").float().numpy() for part in PARTS[2:]}
        words = {part: tensors.pop(f"{layer}.{part}").numpy() for part in PARTS[:2]}
        weight = dequantized(**words, **parts, gptq=gptq)
        tensors[f"{layer}.weight"] = torch.from_numpy(weight.T.copy())
        if layer.endswith(BLOCK_LAYERS[:2]):
            tensors.pop(f"{layer}.bias", None)
    write_tensors(directory, tensors)
    return directory


def dequantized(qweight: Array, qzeros: Array, scales: Array, g_idx: Array, *, gptq: Gptq) -> Array:
    """`(inputs, outputs)` fp32."""
    levels = unpack(qweight.T, gptq.bits).T
    offset = 0 if gptq.is_v2 else 1
    if gptq.borrows:
        zeros = unpack(qzeros + _in_every_place(offset, gptq.bits), gptq.bits)
    else:
        zeros = unpack(qzeros, gptq.bits) + offset
    rows = g_idx.astype(np.int64)
    weight: Array = scales[rows] * (levels - zeros[rows])
    return weight.astype(np.float32)


def pack(values: Array, bits: int) -> Array:
    """Values along the last axis into int32 words, lowest bits first."""
    per_word = 32 // bits
    parts = values.astype(np.uint32).reshape(*values.shape[:-1], -1, per_word)
    words = np.zeros(parts.shape[:-1], np.uint32)
    for place in range(per_word):
        words |= parts[..., place] << np.uint32(bits * place)
    return words.view(np.int32)


def unpack(words: Array, bits: int) -> Array:
    """The values that `pack` has packed, as int64."""
    whole = np.ascontiguousarray(words).view(np.uint32).astype(np.int64)
    places = [(whole >> (bits * place)) % 2**bits for place in range(32 // bits)]
    return np.stack(places, -1).reshape(*words.shape[:-1], -1)


def _in_every_place(value: int, bits: int) -> Array:
    """A word."""
    return pack(np.full(32 // bits, value), bits)


def read_tensors(directory: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in directory.glob("*.safetensors"):
        tensors |= load_file(file)
    return tensors


def write_tensors(directory: Path, tensors: dict[str, Tensor]) -> None:
    """In one safetensors file, the only one of the directory afterwards."""
    for file in (*directory.glob("*.safetensors"), *directory.glob("*.index.json")):
        file.unlink()
    save_file(tensors, directory / "model.safetensors")


def change_config(directory: Path, **changes: Any) -> None:
    """Changes fields of config.json; None drops one."""
    file = directory / "config.json"
    fields = {**json.loads(file.read_text("utf-8")), **changes}
    left = {name: value for name, value in fields.items() if value is not None}
    file.write_text(json.dumps(left), "utf-8")


def _random_layer(
    gptq: Gptq, outputs: int, inputs: int, numbers: np.random.Generator
) -> dict[str, Array]:
    size = inputs if gptq.group_size == -1 else gptq.group_size
    groups = -(-inputs // size)
    g_idx = np.arange(inputs, dtype=np.int32) // size
    levels = numbers.integers(0, 2**gptq.bits, (inputs, outputs))
    # Up to 2**bits in the first format, which stores one less of each.
    lowest = 0 if gptq.is_v2 or gptq.borrows else 1
    zeros = numbers.integers(lowest, 2**gptq.bits + lowest, (groups, outputs))
    if gptq.is_symmetric:
        zeros[:] = 2 ** (gptq.bits - 1)
    std = 2 * (inputs * (4**gptq.bits - 1) / 6) ** -0.5
    scales = std * numbers.uniform(0.7, 1.3, (groups, outputs))
    return {
        "qweight": np.ascontiguousarray(pack(levels.T, gptq.bits).T),
        "qzeros": pack(zeros - lowest, gptq.bits) - _in_every_place(gptq.borrows, gptq.bits),
        "scales": scales.astype(np.float16),
        "g_idx": numbers.permutation(g_idx) if gptq.act_order else g_idx,
    }
