"""The tensors that a MOSS checkpoint must have, and the comparison with those it has.

It is strict: a name that is missing, left over, of another shape or of another kind of numbers is
an error that says which. It depends on no layer, reads no file and needs no torch.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from moss_tp.config import ModelConfig, block_name
from moss_tp.errors import CheckpointError
from moss_tp.quant_config import BIAS, G_IDX, QWEIGHT, QZEROS, SCALES, WEIGHT, QuantFormat

Shape = tuple[int, ...]
# safetensors' names of the dtypes that are numbers as they stand: others need scales, or are ids.
FLOATS = ("F64", "F32", "F16", "BF16")
INT32 = ("I32",)
# Buffers that published CodeGen checkpoints carry beside the parameters.
_BUFFERS = re.compile(r"\.attn\.(causal_mask|masked_bias|bias)$")
_MAX_NAMED = 5


class Header(NamedTuple):
    """What a file says about one of its tensors. `dtype` is in safetensors' spelling."""

    shape: Shape
    dtype: str
    file: Path


class Wanted(NamedTuple):
    """What a tensor must be. `dtypes` as in Header."""

    shape: Shape
    dtypes: tuple[str, ...] = FLOATS


def published_tensors(config: ModelConfig) -> dict[str, Wanted]:
    """Every tensor of a MOSS model, by its published name."""
    hidden = (config.hidden_size,)
    norms = [f"{block_name(layer)}.ln_1" for layer in range(config.num_layers)]
    wanted = {"transformer.wte.weight": Wanted((config.vocab_size, config.hidden_size))}
    for norm in (*norms, "transformer.ln_f"):
        wanted |= {f"{norm}.weight": Wanted(hidden), f"{norm}.bias": Wanted(hidden)}
    for layer, (outputs, inputs) in config.linear_layers.items():
        parts = linear_tensors(outputs, inputs, config.format_of(layer))
        if config.has_bias(layer):
            parts[BIAS] = Wanted((outputs,))
        wanted |= {f"{layer}.{part}": tensor for part, tensor in parts.items()}
    return wanted


def linear_tensors(outputs: int, inputs: int, form: QuantFormat | None) -> dict[str, Wanted]:
    """The tensors of a linear layer that is stored in `form`, without its bias."""
    if form is None:
        return {WEIGHT: Wanted((outputs, inputs))}
    groups = form.num_groups(inputs)
    return {
        G_IDX: Wanted((inputs,), INT32),
        QWEIGHT: Wanted((inputs // form.per_word, outputs), INT32),
        QZEROS: Wanted((groups, outputs // form.per_word), INT32),
        SCALES: Wanted((groups, outputs)),
    }


def stored_config(config: ModelConfig, names: Collection[str]) -> ModelConfig:
    """The config of a checkpoint whose tensors are `names`: some layers of a quantized one may be
    stored unquantized, or with a bias. Raises CheckpointError for tensors that are quantized
    while the config says that none is."""
    if config.quantization is not None:
        quantization = config.quantization.stored_as(config.linear_layers, names)
        return replace(config, quantization=quantization)
    if packed := sorted(name for name in names if name.endswith(f".{QWEIGHT}")):
        raise CheckpointError(
            f"{packed[0]} is quantized, but config.json has neither wbits nor quantization_config"
        )
    return config


def config_with(
    config: ModelConfig, dense: Collection[str], biased: Collection[str]
) -> ModelConfig:
    """As `stored_config`, of a checkpoint whose tensors are known to say these two."""
    if config.quantization is None:
        return config
    quantization = replace(config.quantization, dense=frozenset(dense), biased=frozenset(biased))
    return replace(config, quantization=quantization)


def check_tensors(headers: Mapping[str, Header], wanted: Mapping[str, Wanted]) -> None:
    """Raises CheckpointError unless the tensors have exactly the `wanted` names, shapes and kinds
    of numbers, buffers aside."""
    found = {name: header for name, header in headers.items() if not _BUFFERS.search(name)}
    both = sorted(name for name in wanted if name in found)
    problems = {
        "missing": sorted(wanted.keys() - found.keys()),
        "left over": [f"{n}{_in_file(found[n])}" for n in sorted(found.keys() - wanted.keys())],
        "misshapen": [
            f"{name} {found[name].shape} instead of {wanted[name].shape}{_in_file(found[name])}"
            for name in both
            if found[name].shape != wanted[name].shape
        ],
    }
    for dtypes, kind in ((FLOATS, "not floats"), (INT32, "not int32")):
        problems[kind] = [
            f"{name} {found[name].dtype}{_in_file(found[name])}"
            for name in both
            if wanted[name].dtypes == dtypes and found[name].dtype not in dtypes
        ]
    text = "; ".join(
        f"{problem}: {_listing(names)}" for problem, names in problems.items() if names
    )
    if text:
        raise CheckpointError(f"the checkpoint's tensors are not the model's. {text}")


def _in_file(header: Header) -> str:
    return f" in {header.file}"


def _listing(names: Sequence[str]) -> str:
    num_more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {num_more} more" if num_more > 0 else "")
