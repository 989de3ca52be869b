"""Headers of a checkpoint against its config: quickly, without torch, and as the loader does."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from moss_tp.config import ModelConfig
from moss_tp.errors import CheckpointError
from moss_tp.finetune.sft_model import load_causal_lm
from moss_tp.model import MossForCausalLM, load_model
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.weights.checkpoint import check_headers
from moss_tp.weights.names import published_tensors
from tests.support.config_only import config_only
from tests.support.tiny_moss import make_checkpoint

NORM, BIAS = "transformer.h.1.ln_1.weight", "lm_head.bias"


@pytest.mark.parametrize("inner", [None, 40])
def test_published_shapes_are_the_models(tmp_path: Path, inner: int | None) -> None:
    make_checkpoint(tmp_path, inner=inner, layers=3)
    config = ModelConfig.from_dir(tmp_path)
    model = MossForCausalLM(config, TPGroup.single("cpu"), torch.float32)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert {name: wanted.shape for name, wanted in published_tensors(config).items()} == shapes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("format", ["safetensors", "bin"])
def test_a_whole_checkpoint_passes(tmp_path: Path, format: str, dtype: torch.dtype) -> None:
    """Buffers and all."""
    make_checkpoint(tmp_path, format="bin" if format == "bin" else "safetensors", dtype=dtype)
    check_headers(tmp_path, ModelConfig.from_dir(tmp_path))


def merge(directory: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Saves a small checkpoint in one file, after a change of its tensors."""
    make_checkpoint(directory)
    tensors: dict[str, Tensor] = {}
    for file in directory.glob("*-of-*.safetensors"):
        tensors |= load_file(file)
        file.unlink()
    (directory / "model.safetensors.index.json").unlink()
    change(tensors)
    save_file(tensors, directory / "model.safetensors")


def _cut(directory: Path) -> None:
    file = directory / "model.safetensors"
    os.truncate(file, file.stat().st_size - 1)


def _lengthen(directory: Path) -> None:
    with (directory / "model.safetensors").open("ab") as file:
        file.write(b"\0")


DAMAGE: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "missing": (lambda t: t.pop(NORM), f"missing: {NORM}"),
    "left over": (lambda t: t.update({"lm_head.extra": torch.ones(2)}), "left over: lm_head.extra"),
    "shape": (lambda t: t.update({BIAS: torch.ones(9)}), rf"misshapen: {BIAS} \(9,\) instead of"),
    "int8": (lambda t: t.update({NORM: t[NORM].to(torch.int8)}), f"not floats: {NORM} I8 in"),
    "bool": (lambda t: t.update({NORM: t[NORM].bool()}), f"not floats: {NORM} BOOL in"),
    "fp8": (lambda t: t.update({NORM: t[NORM].to(torch.float8_e4m3fn)}), f"{NORM} F8_E4M3"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_headers_and_loader_refuse_the_same(tmp_path: Path, damage: str) -> None:
    change, message = DAMAGE[damage]
    merge(tmp_path, change)
    config = ModelConfig.from_dir(tmp_path)
    with pytest.raises(CheckpointError, match=message) as checked:
        check_headers(tmp_path, config)
    with pytest.raises(CheckpointError) as loaded:
        load_model(tmp_path, config, TPGroup.single("cpu"), torch.float32)
    with pytest.raises(CheckpointError) as before_training:
        load_causal_lm(tmp_path, gradient_checkpointing=False)
    assert str(checked.value) == str(loaded.value) == str(before_training.value)


@pytest.mark.parametrize("change", [_cut, _lengthen])
def test_a_file_of_another_size_than_its_header_says(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    merge(tmp_path, lambda tensors: None)
    change(tmp_path)
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        check_headers(tmp_path, ModelConfig.from_dir(tmp_path))


def test_a_bin_that_is_cut_off(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, format="bin")
    file = next(tmp_path.glob("*-00002.bin"))
    os.truncate(file, file.stat().st_size - 100)
    with pytest.raises(CheckpointError, match=f"{file.name} cannot be read: it is cut off"):
        check_headers(tmp_path, ModelConfig.from_dir(tmp_path))


def test_a_bin_is_checked_when_it_is_loaded(tmp_path: Path) -> None:
    """Its shapes are known only then; transformers would start a missing tensor at random."""
    make_checkpoint(tmp_path, format="bin")
    file = next(tmp_path.glob("*-00001-of-*.bin"))
    tensors = torch.load(file)
    del tensors[BIAS]
    torch.save(tensors, file)
    with pytest.raises(CheckpointError, match=f"missing: {BIAS}"):
        load_causal_lm(tmp_path, gradient_checkpointing=False)


def test_a_quantized_model_is_not_trained(tmp_path: Path) -> None:
    config_only(tmp_path, wbits=8)
    with pytest.raises(CheckpointError, match="quantized to 8 bits, which cannot be fine-tuned"):
        load_causal_lm(tmp_path, gradient_checkpointing=False)


def test_a_config_of_another_model(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    config = replace(ModelConfig.from_dir(tmp_path), num_layers=1)
    with pytest.raises(CheckpointError, match=r"left over: transformer\.h\.1\.attn"):
        check_headers(tmp_path, config)


def test_no_values_are_read(tmp_path: Path) -> None:
    """A sparse file of 40 GB, whose header alone has bytes, is checked at once."""
    make_checkpoint(tmp_path)
    config = ModelConfig.from_dir(tmp_path)
    huge = replace(config, vocab_size=10**8)
    shapes = {name: wanted.shape for name, wanted in published_tensors(huge).items()}
    _write_sparse(tmp_path / "sparse.safetensors", shapes)
    for file in tmp_path.glob("model*"):
        file.unlink()
    (tmp_path / "sparse.safetensors").rename(tmp_path / "model.safetensors")
    check_headers(tmp_path, huge)


def _write_sparse(file: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(file, 8 + len(text) + end)


def test_needs_no_torch(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    program = (
        "import sys; from pathlib import Path; from moss_tp.config import ModelConfig; "
        "from moss_tp.weights.checkpoint import check_headers; path = Path(sys.argv[1]); "
        "check_headers(path, ModelConfig.from_dir(path)); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
