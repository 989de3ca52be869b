"""Reads how a model directory says that it is quantized, into a QuantConfig.

    config.json            wbits, groupsize                 MOSS's own
                           quantization_config              transformers, GPTQModel
    quantize_config.json   the same fields, in a file        AutoGPTQ, GPTQModel

Only GPTQ's layout of 4 and 8 bits is read. Every other method, width or packing is a ValueError
that names it: its tensors may have the same names and mean something else.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from moss_tp.json_file import integer_field, read_json
from moss_tp.quant_config import LM_HEAD, QuantConfig, QuantFormat, Rule

FILE = "quantize_config.json"
FIELD = "quantization_config"
NOT_QUANTIZED = 32  # of wbits
BITS = (4, 8)
# What the stored zeros lack.
ZERO_OFFSETS = {"gptq": 1, "gptq_v2": 0}
DEFAULT_GROUP_SIZE = 128
_TAKES_FROM_WORDS = "gptqmodel:"  # and its version: see `quant_config` on zeros
_MAX_GROUP_SIZE = 1 << 30
_OTHER_MODELS = "use the model's unquantized sibling, or one in GPTQ's layout with 4 or 8 bits"
# A rule's fields that change how a layer is stored; others say how its levels were found.
_STORED_OTHERWISE = ("method", "quant_method", "format", "checkpoint_format", "pack_dtype")
_REFUSED = ("activation", "adapter", "rotation")


def read_quantization(directory: Path, fields: dict[str, Any]) -> QuantConfig | None:
    """Of a directory whose `config.json` has `fields`; None where its weights are not quantized.

    Raises ValueError for what cannot be read, CheckpointError for a broken FILE.
    """
    wbits = integer_field(fields, "wbits", NOT_QUANTIZED)
    given = _given(directory, fields)
    if given is not None:
        config = _config(*given)
        if wbits not in (NOT_QUANTIZED, config.format.bits):
            raise ValueError(f"wbits {wbits} and bits {config.format.bits} contradict each other")
        return config
    if wbits == NOT_QUANTIZED:
        return None
    group_size = integer_field(fields, "groupsize", DEFAULT_GROUP_SIZE)
    return QuantConfig(_checked(QuantFormat(wbits, group_size), "wbits", "groupsize"))


def _given(directory: Path, fields: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The fields of a quantizer and where they are: config.json's count."""
    value = fields.get(FIELD)
    if value is not None:
        if not isinstance(value, dict):
            raise ValueError(f"{FIELD} is not an object")
        return FIELD, value
    file = directory / FILE
    return (FILE, read_json(file)) if file.exists() else None


def _config(source: str, fields: dict[str, Any]) -> QuantConfig:
    try:
        zero_offset = _zero_offset(fields)
        form = QuantFormat(
            bits=integer_field(fields, "bits"),
            group_size=integer_field(fields, "group_size", DEFAULT_GROUP_SIZE),
            zero_offset=zero_offset,
            borrows=zero_offset > 0 and _is_by_gptqmodel(fields),
            has_act_order=_flag(fields, "desc_act"),
        )
        form = _checked(form)
        return QuantConfig(
            format=form,
            has_head=_flag(fields, LM_HEAD),
            rules=_rules(fields.get("dynamic"), form),
            block_layers=_block_layers(fields.get("modules_in_block_to_quantize")),
        )
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _zero_offset(fields: dict[str, Any]) -> int:
    """Raises ValueError unless it is GPTQ in a layout that is known."""
    method, form = _method(fields), _first(fields, "checkpoint_format", "format") or "gptq"
    if method != "gptq":
        raise ValueError(f"weights quantized by {method} are not served: {_OTHER_MODELS}")
    if _flag(fields, "is_marlin_format"):
        form = "marlin"
    if form not in ZERO_OFFSETS:
        raise ValueError(f"weights packed as {form} are not served: {_OTHER_MODELS}")
    if (packed := fields.get("pack_dtype") or "int32") != "int32":
        raise ValueError(f"words of {packed} are not served: {_OTHER_MODELS}")
    for name in _REFUSED:
        if fields.get(name):
            raise ValueError(f"{name} {fields[name]!r} is not served: {_OTHER_MODELS}")
    return ZERO_OFFSETS[form]


def _is_by_gptqmodel(fields: dict[str, Any]) -> bool:
    """Or by one that lists it, because its zeros are right for it: so they are read as it does."""
    meta = fields.get("meta")
    names = meta.get("quantizer") if isinstance(meta, dict) else None
    listed = names if isinstance(names, list) else [names]
    return any(isinstance(name, str) and name.startswith(_TAKES_FROM_WORDS) for name in listed)


def _method(fields: dict[str, Any]) -> str:
    """By name; bitsandbytes' configs of old have none."""
    named = _first(fields, "quant_method", "method")
    if named is None and any(fields.get(f"load_in_{bits}bit") is not None for bits in BITS):
        return "bitsandbytes"
    return "gptq" if named is None else named


def _first(fields: dict[str, Any], *names: str) -> str | None:
    for name in names:
        value = fields.get(name)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{name} is {value!r}, not a name")
        if value:
            return value.lower()
    return None


def _checked(form: QuantFormat, bits: str = "bits", group_size: str = "group_size") -> QuantFormat:
    if form.bits not in BITS:
        raise ValueError(f"{bits} {form.bits} is not served, only 4 and 8: {_OTHER_MODELS}")
    if form.group_size != -1 and not 1 <= form.group_size <= _MAX_GROUP_SIZE:
        raise ValueError(f"{group_size} {form.group_size} is neither -1 nor positive")
    return form


def _flag(fields: dict[str, Any], name: str) -> bool:
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"the field {name!r} is {value!r}, not true or false")
    return bool(value)


def _rules(dynamic: Any, form: QuantFormat) -> tuple[Rule, ...]:
    """GPTQModel's: the pattern behind "-:" names layers that are not quantized, others ("+:" or
    nothing before them) give some fields anew."""
    if dynamic is None:
        return ()
    if not isinstance(dynamic, dict):
        raise ValueError(f"dynamic is {dynamic!r}, not an object")
    return tuple(_rule(pattern, changes, form) for pattern, changes in dynamic.items())


def _rule(pattern: str, changes: Any, form: QuantFormat) -> Rule:
    regex = pattern.removeprefix("-:" if pattern.startswith("-:") else "+:")
    try:
        re.compile(regex)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"dynamic has {pattern!r}, which is no pattern: {error}") from error
    if pattern.startswith("-:"):
        return Rule(regex, None)
    if not isinstance(changes, dict):
        raise ValueError(f"dynamic gives {pattern!r} {changes!r}, not an object")
    for name in _STORED_OTHERWISE:
        if changes.get(name) is not None:
            raise ValueError(f"dynamic gives {pattern!r} another {name}: {_OTHER_MODELS}")
    bits = integer_field(changes, "bits", form.bits)
    group_size = integer_field(changes, "group_size", form.group_size)
    return Rule(regex, _checked(replace(form, bits=bits, group_size=group_size)))


def _block_layers(value: Any) -> frozenset[str] | None:
    """Names, or lists of names that were quantized together."""
    if value is None:
        return None
    if not isinstance(value, list):
        raise ValueError(f"modules_in_block_to_quantize is {value!r}, not a list")
    names = [name for part in value for name in (part if isinstance(part, list) else [part])]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"modules_in_block_to_quantize has {value!r}, not names")
    return frozenset(names)
