"""What a model directory says about its quantization, as MOSS and today's tools write it."""

import json
from pathlib import Path
from typing import Any

import pytest

from moss_tp.config import ModelConfig
from moss_tp.errors import CheckpointError, ConfigError
from moss_tp.quant_config import QuantConfig, QuantFormat
from tests.moss_tp.test_config import write

# As GPTQModel 7.7 writes it into config.json.
PUBLISHED: dict[str, Any] = {
    "bits": 4,
    "checkpoint_format": "gptq",
    "desc_act": False,
    "format": "gptq",
    "group_size": 128,
    "lm_head": False,
    "meta": {"damp_percent": 0.05, "quantizer": ["gptqmodel:7.7.0"], "true_sequential": True},
    "method": "gptq",
    "pack_dtype": "int32",
    "quant_method": "gptq",
    "sym": True,
}
QKV, FC_IN = "transformer.h.3.attn.qkv_proj", "transformer.h.3.mlp.fc_in"


def read(directory: Path, **changes: Any) -> QuantConfig | None:
    return ModelConfig.from_dir(write(directory, **changes)).quantization


def of_gptq(directory: Path, **changes: Any) -> QuantConfig:
    config = read(directory, quantization_config={**PUBLISHED, **changes})
    assert config is not None
    return config


@pytest.mark.parametrize("fields", [{"wbits": 4}, {"wbits": 4, "groupsize": 128}])
def test_moss_own_fields(tmp_path: Path, fields: dict[str, Any]) -> None:
    config = read(tmp_path, **fields)
    assert config == QuantConfig(QuantFormat(4, 128))
    assert config.format_of(QKV) == QuantFormat(4, 128)
    assert config.format_of("lm_head") is None


def test_one_group(tmp_path: Path) -> None:
    config = read(tmp_path, wbits=8, groupsize=-1)
    assert config is not None
    assert (config.format.num_groups(6144), QuantFormat(4, 128).num_groups(200)) == (1, 2)


@pytest.mark.parametrize(
    "fields", [{}, {"wbits": 32}, {"wbits": None}, {"quantization_config": None}]
)
def test_not_quantized(tmp_path: Path, fields: dict[str, Any]) -> None:
    assert read(tmp_path, **fields) is None


def test_the_tools_fields(tmp_path: Path) -> None:
    assert of_gptq(tmp_path) == QuantConfig(QuantFormat(4, 128, zero_offset=1, borrows=True))
    changes = {"checkpoint_format": "gptq_v2", "format": "gptq_v2", "desc_act": True}
    config = of_gptq(tmp_path, **changes, lm_head=True)
    assert config == QuantConfig(QuantFormat(4, 128, 0, has_act_order=True), has_head=True)
    assert config.format_of("lm_head") == config.format


@pytest.mark.parametrize(
    ("meta", "borrows"),
    [
        ({"quantizer": ["optimum:1.24", "gptqmodel:2.0.0"]}, True),
        ({"quantizer": "gptqmodel:1.0"}, True),
        ({"quantizer": ["auto_gptq:0.7.1"]}, False),
        ({"quantizer": [7]}, False),
        ({}, False),
        (None, False),
    ],
)
def test_who_took_the_zeros_offset_from_whole_words(
    tmp_path: Path, meta: dict[str, Any] | None, borrows: bool
) -> None:
    assert of_gptq(tmp_path, meta=meta).format.borrows is borrows


def test_a_file_beside_the_config(tmp_path: Path) -> None:
    """As AutoGPTQ wrote it, without a method."""
    fields = {"bits": 8, "group_size": 64, "desc_act": True, "damp_percent": 0.01, "sym": True}
    (tmp_path / "quantize_config.json").write_text(json.dumps(fields))
    assert read(tmp_path) == QuantConfig(QuantFormat(8, 64, has_act_order=True))
    assert of_gptq(tmp_path).format.bits == 4  # config.json counts
    (tmp_path / "quantize_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"quantize_config\.json cannot be read"):
        read(tmp_path)


def test_rules_for_layers(tmp_path: Path) -> None:
    dynamic = {r"-:.*h\.3\.attn": {}, r"+:.*\.fc_in$": {"bits": 8, "group_size": 32}, ".*": {}}
    config = of_gptq(tmp_path, dynamic=dynamic)
    assert config.format_of(QKV) is None
    assert config.format_of(FC_IN) == QuantFormat(8, 32, borrows=True)
    assert config.format_of("transformer.h.2.attn.qkv_proj") == QuantFormat(4, 128, borrows=True)


@pytest.mark.parametrize("listed", [["mlp.fc_in"], [["mlp.fc_in"], ["mlp.fc_out"]]])
def test_layers_that_are_listed(tmp_path: Path, listed: Any) -> None:
    config = of_gptq(tmp_path, modules_in_block_to_quantize=listed)
    assert config.format_of(QKV) is None
    assert config.format_of(FC_IN) is not None


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"quant_method": "awq"}, "quantized by awq"),
    ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "by bitsandbytes"),
    ({"quant_method": "fp8"}, "by fp8"),
    ({"quant_method": "compressed-tensors"}, "by compressed-tensors"),
    ({"bits": 2}, "bits 2 is not served, only 4 and 8"),
    ({"bits": 3}, "bits 3 is not served"),
    ({"bits": "4"}, "'bits' is '4', not a number"),
    ({"bits": None}, "'bits' is missing"),
    ({"checkpoint_format": "marlin"}, "packed as marlin"),
    ({"is_marlin_format": True}, "packed as marlin"),
    ({"checkpoint_format": "gptq_p"}, "packed as gptq_p"),
    ({"checkpoint_format": 2}, "checkpoint_format is 2, not a name"),
    ({"pack_dtype": "int16"}, "words of int16"),
    ({"group_size": 0}, "group_size 0 is neither -1 nor positive"),
    ({"group_size": -2}, "group_size -2"),
    ({"desc_act": "yes"}, "'desc_act' is 'yes', not true or false"),
    ({"rotation": "hadamard"}, "rotation 'hadamard' is not served"),
    ({"adapter": {"rank": 32}}, "adapter"),
    ({"dynamic": ["x"]}, "dynamic is"),
    ({"dynamic": {"+:(": {"bits": 8}}}, "which is no pattern"),
    ({"dynamic": {"a": {"bits": 3}}}, "bits 3 is not served"),
    ({"dynamic": {"a": {"format": "marlin"}}}, "another format"),
    ({"dynamic": {"a": None}}, "not an object"),
    ({"modules_in_block_to_quantize": "attn"}, "not a list"),
    ({"modules_in_block_to_quantize": [1]}, "not names"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_is_not_served_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=rf"config\.json: quantization_config: .*{message}"):
        of_gptq(tmp_path, **changes)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"wbits": 3}, "wbits 3 is not served, only 4 and 8"),
        ({"wbits": 16}, "wbits 16"),
        ({"wbits": 4, "groupsize": 0}, "groupsize 0"),
        ({"quantization_config": {"load_in_8bit": True}}, "by bitsandbytes"),
        ({"quantization_config": [4]}, "is not an object"),
        ({"wbits": 8, "quantization_config": PUBLISHED}, "wbits 8 and bits 4 contradict"),
        ({"wbits": 4, "n_embd": 36, "n_head": 3, "rotary_dim": 4}, "cannot be packed with 4 bits"),
        ({"n_layer": 10**9}, "n_layer 1000000000 is more than"),
    ],
)
def test_impossible_fields(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path, **fields)


def test_ranks_that_cut_a_word(tmp_path: Path) -> None:
    sizes = {"n_embd": 96, "n_head": 8, "rotary_dim": 4}
    model = ModelConfig.from_dir(write(tmp_path, wbits=4, **sizes))
    for tp_size in (1, 2, 4):
        model.check_tp(tp_size)
    with pytest.raises(ConfigError, match=r"tp 8 cuts .*qkv_proj into parts of 12, .* 8 to a word"):
        model.check_tp(8)
    ModelConfig.from_dir(write(tmp_path, wbits=8, **sizes)).check_tp(8)


def test_a_layers_bytes(tmp_path: Path) -> None:
    dense = ModelConfig.from_dir(write(tmp_path))
    quantized = ModelConfig.from_dir(write(tmp_path, wbits=4))
    hidden = 6144
    assert dense.matrix_bytes(QKV, 2) == 2 * 3 * hidden**2
    groups = 3 * hidden * (hidden // 128)
    assert quantized.matrix_bytes(QKV, 2) == 3 * hidden**2 // 2 + groups // 2 + groups * 2
    assert quantized.matrix_bytes("lm_head", 2) == dense.matrix_bytes("lm_head", 2)


@pytest.mark.parametrize("fields", [{}, {"wbits": 4}])
def test_a_rounded_head(tmp_path: Path, fields: dict[str, Any]) -> None:
    """It alone is changed, and nothing where it is quantized already."""
    model = ModelConfig.from_dir(write(tmp_path, **fields))
    rounded = model.with_rounded_head(8)
    assert rounded.format_of("lm_head") == QuantFormat(8, -1)
    assert rounded.format_of(QKV) == model.format_of(QKV)
    assert rounded.matrix_bytes("lm_head", 2) == 107008 * (6144 + 3)
    assert model.with_rounded_head(None) == model
    quantized = {**PUBLISHED, "lm_head": True}
    model = ModelConfig.from_dir(write(tmp_path, quantization_config=quantized))
    assert model.with_rounded_head(8) == model
