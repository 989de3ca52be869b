"""The files of a quantized model beside its blocks: config, tokenizer, index, other tensors."""

import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from safetensors import safe_open
from torch import Tensor

from moss_tp.json_file import read_json
from moss_tp.quantize.mlp_order import sort_columns
from moss_tp.quantize.output import Output
from moss_tp.quantize.settings import QuantizeSettings
from moss_tp.quantize.source import Source
from moss_tp.tokenizer_files import TOKENIZER_FILES

_PACKAGE = "moss-serve"
_OTHER_FILES = (*TOKENIZER_FILES, "generation_config.json")
# gptqmodel, which refuses an asymmetric `gptq` file without it, asks whether zero - 1 of each zero
# point fits its bits: since its version 0.9 it does, and so it does here (see `Scale`).
_ZEROS_LIKE = "gptqmodel:0.9.0"


def block_file(layer: int, num_layers: int) -> str:
    """The file of a block. The first one has what is outside of all blocks."""
    return f"model-{layer + 2:05}-of-{num_layers + 1:05}.safetensors"


def write_block(
    output: Output,
    source: Source,
    layer: int,
    quantized: dict[str, Tensor],
    replaced: set[str],
    settings: QuantizeSettings,
) -> None:
    """`quantized` are by their names behind the block's; without the `replaced` ones, and all else
    as it is in the source, but for the order of the MLP's columns with act-order."""
    names = source.names_of_block(layer)
    prefix = names[0][: names[0].index(f".{layer}.")] + f".{layer}."
    kept = [name for name in names if name.removeprefix(prefix) not in replaced]
    tensors = {name.removeprefix(prefix): source.read(name) for name in kept} | quantized
    if settings.act_order:
        tensors = sort_columns(tensors, settings.bits)
    stored = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    output.write_tensors(block_file(layer, source.config.num_layers), stored)


def write_rest(output: Output, source: Source, settings: QuantizeSettings) -> None:
    """All files but the report."""
    outside = {name: source.read(name) for name in source.names_outside()}
    output.write_tensors(block_file(-1, source.config.num_layers), outside)
    _write_index(output, source.config.num_layers)
    for name in _OTHER_FILES:
        if (settings.model / name).is_file():
            shutil.copyfile(settings.model / name, output.model / name)
    output.write_json("config.json", published_config(settings))


def published_config(settings: QuantizeSettings) -> dict[str, Any]:
    """The source's fields, with `wbits` and `groupsize` as MOSS has them, and
    `quantization_config` as today's tools do."""
    fields = read_json(settings.model / "config.json")
    quantization = {
        "quant_method": "gptq",
        "checkpoint_format": "gptq",
        "bits": settings.bits,
        "group_size": settings.group_size,
        "desc_act": settings.act_order,
        "sym": settings.sym,
        "lm_head": False,
        "pack_dtype": "int32",
        "damp_percent": settings.damping,
        "true_sequential": True,
        "meta": {"quantizer": [f"{_PACKAGE}:{_version()}", _ZEROS_LIKE]},
    }
    return {
        **fields,
        "wbits": settings.bits,
        "groupsize": settings.group_size,
        "quantization_config": quantization,
    }


def _version() -> str:
    try:
        return version(_PACKAGE)
    except PackageNotFoundError:  # the source is used without being installed
        return "0"


def _write_index(output: Output, num_layers: int) -> None:
    weight_map: dict[str, str] = {}
    size = 0
    for layer in range(-1, num_layers):
        file = block_file(layer, num_layers)
        with safe_open(output.model / file, framework="pt") as opened:
            weight_map |= dict.fromkeys(opened.keys(), file)
        size += (output.model / file).stat().st_size
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
    output.write_json("model.safetensors.index.json", index)
