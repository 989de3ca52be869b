"""Checkpoints in GPTQ's layout that fit their config, and those that do not: refused by name, early
where they are safetensors, and in any case when they are loaded."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import torch
from torch import Tensor

from moss_tp.config import ModelConfig
from moss_tp.errors import CheckpointError
from moss_tp.model import MossForCausalLM
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.weights.checkpoint import Checkpoint, StoredTensor, check_headers
from moss_tp.weights.load import fill_parameters
from moss_tp.weights.names import Header
from tests.moss_tp.quantized_moss import (
    Gptq,
    change_config,
    make_quantized,
    read_tensors,
    write_tensors,
)
from tests.moss_tp.weights.test_load import CountingTensor

SIZES = {"layers": 1, "vocab_size": 280}
KIND = Gptq(act_order=True, biased=("attn.qkv_proj",))
BLOCK = "transformer.h.0."
QKV, FC_OUT = f"{BLOCK}attn.qkv_proj", f"{BLOCK}mlp.fc_out"
LIMIT_S = 5
CPU = torch.device("cpu")

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def tensors(tmp_path_factory: pytest.TempPathFactory) -> Tensors:
    return read_tensors(make_quantized(tmp_path_factory.mktemp("whole"), KIND, **SIZES))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return make_quantized(tmp_path, KIND, **SIZES)


def load(directory: Path) -> MossForCausalLM:
    """As `load_model` does, without packing the weights for a kernel."""
    with Checkpoint.open(directory) as checkpoint:
        config = checkpoint.check(ModelConfig.from_dir(directory))
        model = MossForCausalLM(config, TPGroup.single("cpu"), torch.float32)
        fill_parameters(model, checkpoint)
    return model


def write(directory: Path, tensors: Tensors, format: str) -> None:
    write_tensors(directory, tensors)
    if format == "bin":
        (directory / "model.safetensors").unlink()
        torch.save(tensors, directory / "pytorch_model.bin")


def refusal(directory: Path, format: str) -> str:
    """Why it is refused: the same words early and late."""
    with pytest.raises(CheckpointError) as loaded:
        load(directory)
    if format == "safetensors":
        with pytest.raises(CheckpointError) as checked:
            check_headers(directory, ModelConfig.from_dir(directory))
        assert str(checked.value) == str(loaded.value)
    return str(loaded.value)


def _cast(name: str, dtype: torch.dtype) -> Callable[[Tensors], object]:
    return lambda t: t.update({name: t[name].to(dtype)})


def _cut(name: str, rows: int) -> Callable[[Tensors], object]:
    return lambda t: t.update({name: t[name][:rows].clone()})


def _set(name: str, value: int) -> Callable[[Tensors], object]:
    return lambda t: t[name].view(-1)[5].fill_(value)


DAMAGE: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "no scales": (lambda t: t.pop(f"{QKV}.scales"), f"missing: {QKV}.scales"),
    "no g_idx": (lambda t: t.pop(f"{QKV}.g_idx"), f"missing: {QKV}.g_idx"),
    "qweight alone": (
        lambda t: [t.pop(f"{QKV}.{part}") for part in ("scales", "g_idx", "qzeros")],
        f"missing: {QKV}.g_idx, {QKV}.qzeros, {QKV}.scales",
    ),
    "a weight too": (
        lambda t: t.update({f"{QKV}.weight": torch.ones(192, 64)}),
        f"left over: {QKV}.weight",
    ),
    "no bias": (lambda t: t.pop(f"{FC_OUT}.bias"), f"missing: {FC_OUT}.bias"),
    "int64": (_cast(f"{QKV}.qweight", torch.int64), f"not int32: {QKV}.qweight I64"),
    "float g_idx": (_cast(f"{QKV}.g_idx", torch.float32), f"not int32: {QKV}.g_idx F32"),
    "int scales": (_cast(f"{QKV}.scales", torch.int32), f"not floats: {QKV}.scales I32"),
    "rows": (_cut(f"{FC_OUT}.qweight", 16), rf"misshapen: {FC_OUT}.qweight (16, 64) instead of"),
    "groups": (_cut(f"{FC_OUT}.scales", 3), f"misshapen: {FC_OUT}.scales (3, 64) instead of"),
    "g_idx": (_set(f"{FC_OUT}.g_idx", 16), f"{FC_OUT}.g_idx"),
    "g_idx below": (_set(f"{FC_OUT}.g_idx", -1), "has groups from -1 to 15, but the layer's are 0"),
}


@pytest.mark.parametrize("format", ["safetensors", "bin"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(directory: Path, tensors: Tensors, damage: str, format: str) -> None:
    change, message = DAMAGE[damage]
    changed = {name: tensor.clone() for name, tensor in tensors.items()}
    change(changed)
    write(directory, changed, format)
    assert message in refusal(directory, format)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 8}, "qweight (8, 256) instead of (16, 256)"),
        ({"group_size": 32}, "qzeros (4, 32) instead of (2, 32)"),
        ({"group_size": -1}, "qzeros (4, 32) instead of (1, 32)"),
        ({"lm_head": True}, None),  # present unquantized
        ({"dynamic": {"-:.*fc_in": {}}}, f"missing: {BLOCK}mlp.fc_in.weight"),
        ({"dynamic": {".*fc_in": {"bits": 8}}}, "fc_in.qweight (8, 256) instead of (16, 256)"),
    ],
)
def test_a_config_of_another_checkpoint(
    directory: Path, changes: dict[str, Any], message: str | None
) -> None:
    change_config(directory, quantization_config={**KIND.quantization_config, **changes})
    if message is None:
        load(directory)
    else:
        assert message in refusal(directory, "safetensors")


def test_a_config_without_quantization(directory: Path) -> None:
    change_config(directory, quantization_config=None)
    assert "qweight is quantized, but config.json has neither" in refusal(directory, "safetensors")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scales_of_other_floats(directory: Path, tensors: Tensors, dtype: torch.dtype) -> None:
    """They are converted; what fp16 cannot hold is refused."""
    name = f"{QKV}.scales"
    write(directory, {**tensors, name: tensors[name].to(dtype)}, "safetensors")
    check_headers(directory, ModelConfig.from_dir(directory))
    load(directory)
    write(directory, {**tensors, name: tensors[name].to(dtype) * 1e8}, "safetensors")
    with pytest.raises(CheckpointError, match=r"qkv_proj\.scales in .* is not finite in fp16"):
        load(directory)


def test_what_the_tensors_tell(tmp_path: Path) -> None:
    """Which layers are excluded is not in the config here."""
    make_quantized(tmp_path, Gptq(dense=("mlp.fc_out",)), **SIZES)
    config = ModelConfig.from_dir(tmp_path)
    assert config.format_of(FC_OUT) is not None
    stored = check_headers(tmp_path, config)
    assert stored.format_of(FC_OUT) is None and stored.format_of(QKV) == config.format_of(QKV)


def test_moss_own_config_and_a_bin(directory: Path, tensors: Tensors) -> None:
    """The published files: wbits and groupsize, `.bin`, and buffers."""
    buffers = {f"{BLOCK}attn.causal_mask": torch.ones(1, 1, 8, 8, dtype=torch.bool)}
    write(directory, {**tensors, **buffers}, "bin")
    change_config(directory, quantization_config=None, **KIND.fields)
    check_headers(directory, ModelConfig.from_dir(directory))
    load(directory)


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("tp_size", [1, 2, 4])
def test_a_rank_reads_its_own_part(tmp_path: Path, tp_size: int, act_order: bool) -> None:
    kind = Gptq(act_order=act_order)
    stored = read_tensors(make_quantized(tmp_path, kind, **SIZES))
    config = ModelConfig.from_dir(tmp_path)
    for rank in range(tp_size):
        counting = {name: CountingTensor(tensor) for name, tensor in stored.items()}
        headers = {name: _stored(tensor, counting[name]) for name, tensor in stored.items()}
        model = MossForCausalLM(config, TPGroup(rank, tp_size, CPU), torch.float32)
        fill_parameters(model, Checkpoint(headers))
        read = {name: counting[name].num_read * tp_size for name in counting}
        whole = {name: tensor.numel() for name, tensor in stored.items()}
        for part in ("qweight", "qzeros", "scales"):
            assert read[f"{QKV}.{part}"] == whole[f"{QKV}.{part}"]
        assert read[f"{FC_OUT}.qweight"] == whole[f"{FC_OUT}.qweight"]
        assert read[f"{FC_OUT}.g_idx"] == whole[f"{FC_OUT}.g_idx"]
        for part in ("qzeros", "scales"):
            is_own = read[f"{FC_OUT}.{part}"] == whole[f"{FC_OUT}.{part}"]
            assert is_own or act_order


def _stored(tensor: Tensor, values: CountingTensor) -> StoredTensor:
    dtype = "I32" if tensor.dtype == torch.int32 else "F32"
    return StoredTensor(Header(tuple(tensor.shape), dtype, Path("x")), values)


DTYPES = (torch.int8, torch.int16, torch.int64, torch.float16, torch.float32, torch.bool)


def mutate(tensors: Tensors, numbers: random.Random) -> str:
    """Changes one tensor of a quantized layer so that no loader may take it; says how."""
    names = sorted(name for name in tensors if name.endswith(("qweight", "qzeros", "g_idx")))
    name = numbers.choice(names)
    tensor = tensors[name]
    kind = numbers.choice(("drop", "dtype", "rows", "transpose", "flatten", "rename", "groups"))
    if kind == "drop":
        del tensors[name]
    elif kind == "dtype":
        tensors[name] = tensor.to(numbers.choice(DTYPES))
    elif kind == "rows":
        tensors[name] = tensor[: numbers.randrange(len(tensor))].clone()
    elif kind == "transpose":
        tensors[name] = tensor[None].contiguous()
    elif kind == "flatten":
        tensors[name] = torch.cat((tensor.flatten(), tensor.flatten()[:1]))
    elif kind == "rename":
        tensors[name + "s"] = tensors.pop(name)
    else:
        name = f"{QKV}.g_idx"
        groups = tensors[name].clone()
        groups[numbers.randrange(len(groups))] = numbers.choice((-1, 4, 2**31 - 1, -(2**31)))
        tensors[name] = groups
    return f"{kind} {name}"


def test_200_mutated_checkpoints_are_refused(directory: Path, tensors: Tensors) -> None:
    """By a message that names the tensor or, where the file is cut or changed, the file."""
    config = ModelConfig.from_dir(directory)
    for seed in range(200):
        numbers, changed = random.Random(seed), dict(tensors)
        what = mutate(changed, numbers) if seed % 4 else "file model.safetensors"
        write_tensors(directory, changed)
        if not seed % 4:
            damage_file(directory / "model.safetensors", numbers)
        start = monotonic()
        with pytest.raises(CheckpointError) as refused:
            check_headers(directory, config)
        assert what.split()[1] in str(refused.value), (seed, what)
        with pytest.raises(CheckpointError):
            load(directory)
        assert monotonic() - start < LIMIT_S, (seed, what)


def damage_file(file: Path, numbers: random.Random) -> None:
    """Cuts it, or writes bytes that no text has into its header."""
    length = int.from_bytes(file.read_bytes()[:8], "little")
    if numbers.random() < 0.5:
        os.truncate(file, numbers.randrange(file.stat().st_size))
        return
    with file.open("r+b") as opened:
        opened.seek(8 + numbers.randrange(length - 8))
        opened.write(b"\xff\xfe")


def test_a_changed_bin_never_crashes(directory: Path, tensors: Tensors) -> None:
    """Some changes of levels are another model: those load."""
    write(directory, tensors, "bin")
    file, config = directory / "pytorch_model.bin", ModelConfig.from_dir(directory)
    whole = file.read_bytes()
    for seed in range(30):
        numbers, raw = random.Random(seed), bytearray(whole)
        for _ in range(8):
            raw[numbers.randrange(len(raw) if seed % 2 else 4096)] = numbers.randrange(256)
        file.write_bytes(raw[: numbers.randrange(len(raw))] if seed % 3 == 0 else raw)
        try:
            check_headers(directory, config)
            load(directory)
        except CheckpointError as error:
            assert "pytorch_model.bin" in str(error) or "transformer" in str(error)
