"""What the terminal shows of a loaded model."""

import os
from pathlib import Path
from typing import Any

import pytest

from moss_tp.config import ModelConfig
from moss_tp.engine_config import EngineConfig
from serve_app.cli.serve.model_notes import GIB, limits_note, memory_bytes, weights_note
from tests.moss_tp.test_config import write

GPTQ = {"quant_method": "gptq", "bits": 8, "group_size": -1, "lm_head": True}


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({}, "weights in bfloat16: 15.6 GiB a rank"),
        (
            {"wbits": 4, "groupsize": 128},
            "weights in int4 (groups of 128), lm_head in bfloat16: 5.0 GiB a rank",
        ),
        ({"quantization_config": GPTQ}, "weights in int8 (one group): 8.1 GiB a rank"),
        (
            {"quantization_config": {**GPTQ, "dynamic": {"-:.*out_proj": {}}}},
            "weights in int8 (one group) and bfloat16, lm_head in int8 (one group), 34 layers "
            "unpacked to bfloat16: 11.1 GiB a rank",
        ),
    ],
)
def test_how_weights_are_stored(tmp_path: Path, fields: dict[str, Any], note: str) -> None:
    model = ModelConfig.from_dir(write(tmp_path, **fields))
    assert weights_note(model, EngineConfig(str(tmp_path), tp_size=2)) == note


def test_a_head_that_is_rounded_when_it_is_loaded(tmp_path: Path) -> None:
    config = EngineConfig(str(tmp_path), tp_size=2, lm_head_bits=8)
    model = ModelConfig.from_dir(write(tmp_path))
    assert (
        weights_note(model, config)
        == "weights in bfloat16, lm_head in int8 (one group): 15.3 GiB a rank"
    )
    model = ModelConfig.from_dir(write(tmp_path, quantization_config=GPTQ))
    assert weights_note(model, config) == "weights in int8 (one group): 8.1 GiB a rank"


@pytest.mark.parametrize(("device", "note"), [("cpu", "5.3"), ("cuda", "31.1")])
def test_fp32_has_no_packed_kernels_on_cuda(tmp_path: Path, device: str, note: str) -> None:
    model = ModelConfig.from_dir(write(tmp_path, wbits=4, groupsize=128))
    config = EngineConfig(str(tmp_path), tp_size=2, device=device, dtype="float32", lm_head_bits=8)
    text = weights_note(model, config)
    assert text.endswith(f": {note} GiB a rank")
    assert ("137 layers unpacked to float32" in text) == (device == "cuda")


def test_memory_and_limits(tmp_path: Path) -> None:
    config = EngineConfig(str(tmp_path), tp_size=1, max_model_len=2048, max_num_seqs=8)
    own = memory_bytes([os.getpid()])
    assert own > 1 << 20
    text = limits_note({"rank_pids": [os.getpid()], "num_blocks": 1000}, config)
    assert text.startswith("the rank takes ")
    assert f"takes {own / GIB:.0f}" in text or f"takes {own / GIB - 0.5:.0f}" in text
    assert text.endswith(
        "the KV cache holds 16,000 tokens, a chat up to 2,048; 8 replies run at once"
    )
