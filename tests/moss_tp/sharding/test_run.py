"""Sharded directories hold the very bytes that loading the source packs; others are refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from moss_tp.config import ModelConfig
from moss_tp.engine.build import build_engine
from moss_tp.engine_config import EngineConfig
from moss_tp.errors import CheckpointError, ConfigError, EngineDeadError
from moss_tp.layers.block import MossBlock
from moss_tp.llm import LLM
from moss_tp.model import MossForCausalLM, load_model
from moss_tp.native import instruction_set as kinds
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.sampling_params import SamplingParams
from moss_tp.sharding.run import shard_model
from moss_tp.sharding.settings import ShardSettings
from moss_tp.weights.digest import weights_digest
from moss_tp.weights.ranks.manifest import MANIFEST
from moss_tp.weights.sharded import resolve_weights
from tests.moss_tp.quantized_moss import Gptq, make_quantized
from tests.support.tiny_moss import make_checkpoint

CPU = torch.device("cpu")


def _model(directory: Path, rank: int, tp: int, dtype: str, bits: int | None) -> MossForCausalLM:
    group, config = TPGroup(rank, tp, CPU), ModelConfig.from_dir(directory)
    return load_model(directory, config, group, getattr(torch, dtype), lm_head_bits=bits)


def _packed(model: MossForCausalLM) -> list[object]:
    """Descriptions and bytes of everything that is packed, and the embedding's."""
    storage = model.kernels.storage
    assert storage is not None
    kernels = [block.kernel for block in model.transformer.h if isinstance(block, MossBlock)]
    found: list[object] = []
    for kernel in (*kernels, model._head.linear):
        description, tensors = storage.describe(kernel)
        found += [description, *(tensor.view(-1).view(torch.uint8).tolist() for tensor in tensors)]
    rows = model.transformer.wte.weight.contiguous()
    return [*found, rows.view(torch.uint8).tolist(), model.transformer.ln_f.bias.tolist()]


def _shard(source: Path, tp: int = 2, dtype: str = "bfloat16", bits: int | None = None) -> Path:
    destination = source.with_name(f"sharded-{tp}")
    shard_model(ShardSettings(source, destination, tp, dtype, bits), is_shown=False)
    return destination


@pytest.mark.parametrize(
    ("gptq", "dtype", "bits"),
    [
        (None, "bfloat16", None),
        (None, "float32", 8),
        (Gptq(), "bfloat16", 8),
        (Gptq(bits=8, act_order=True, biased=("attn.qkv_proj",)), "bfloat16", None),
    ],
)
@pytest.mark.parametrize("tp", [1, 2])
def test_every_rank_reads_what_loading_the_source_packs(
    tmp_path: Path, gptq: Gptq | None, dtype: str, bits: int | None, tp: int
) -> None:
    source = tmp_path / "source"
    if gptq is None:
        make_checkpoint(source)
    else:
        make_quantized(source, gptq)
    sharded = _shard(source, tp, dtype, bits)
    for rank in range(tp):
        own = _packed(_model(sharded, rank, tp, dtype, None))
        assert own == _packed(_model(source, rank, tp, dtype, bits))
    other_dtype = _packed(_model(source, 0, tp, "float16", bits))
    assert other_dtype != own  # the comparison can fail
    assert weights_digest(sharded) == weights_digest(source)


@pytest.mark.parametrize("tp", [1, 2])
def test_the_same_tokens(tmp_path: Path, tp: int) -> None:
    source = make_checkpoint(tmp_path / "source")
    directories, tokens = (source, _shard(source, tp)), []
    for directory in directories:
        with LLM(str(directory), tp_size=tp) as llm:
            outputs = llm.generate(["the", "in"], SamplingParams(max_tokens=8, temperature=0))
            tokens.append([output.token_ids for output in outputs])
    assert tokens[0] == tokens[1]
    assert len(set(map(tuple, tokens[0]))) == 2


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = make_checkpoint(tmp_path_factory.mktemp("model") / "source")
    return _shard(source, bits=8)


def _config(directory: Path) -> EngineConfig:
    return EngineConfig(model=str(directory), tp_size=2)


def test_the_lm_heads_bits_are_the_directorys(sharded: Path) -> None:
    assert resolve_weights(_config(sharded)).lm_head_bits == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tp_size": 1}, "sharded for tp 2, not 1"),
        ({"dtype": "float32"}, "sharded for dtype bfloat16, not float32"),
        ({"device": "cuda"}, "sharded for device cpu, not cuda"),
    ],
)
def test_another_engine_is_refused(sharded: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_engine(replace(_config(sharded), **change))  # type: ignore[arg-type]


def _changed(sharded: Path, directory: Path, **fields: object) -> EngineConfig:
    """A copy with other fields in its manifest."""
    shutil.copytree(sharded, directory)
    manifest = json.loads((directory / MANIFEST).read_text("utf-8"))
    (directory / MANIFEST).write_text(json.dumps(manifest | fields), "utf-8")
    return _config(directory)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": 0}, "is of format 0"),
        ({"vectors": "AVX-1024"}, "sharded for processor AVX-1024"),
        ({"lm_head_bits": None}, "sharded for lm_head_bits None, not 8"),
        ({"files": 3}, "is not a manifest"),
        ({"more": 3}, "is not a manifest"),
        ({"source_digest": "0"}, "has changed since"),
    ],
)
def test_another_manifest_is_refused(
    sharded: Path, tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    config = replace(_changed(sharded, tmp_path / "copy", **fields), lm_head_bits=8)
    with pytest.raises((ConfigError, CheckpointError), match=message):
        build_engine(config)


def test_a_source_that_is_gone_is_not_compared(sharded: Path, tmp_path: Path) -> None:
    fields = {"source": str(tmp_path / "gone"), "source_digest": "0"}
    assert resolve_weights(_changed(sharded, tmp_path / "copy", **fields)).lm_head_bits == 8


@pytest.mark.parametrize("name", ["rank-1-of-2.bin", "rank-0-of-2.json", "config.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "broken"])
def test_a_damaged_file_is_refused(sharded: Path, tmp_path: Path, name: str, damage: str) -> None:
    config = _changed(sharded, tmp_path / "copy")
    file = tmp_path / "copy" / name
    content = file.read_bytes()
    match damage:
        case "missing":
            file.unlink()
        case "cut":
            file.write_bytes(content[:-1])
        case "broken":
            middle = len(content) // 3
            flipped = bytes([content[middle] ^ 1])
            file.write_bytes(content[:middle] + flipped + content[middle + 1 :])
    # Another rank reports what it read as its last words.
    with pytest.raises((CheckpointError, EngineDeadError), match=name):
        build_engine(config)


def test_what_cannot_be_sharded_is_refused(sharded: Path, tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "source")
    with pytest.raises(ConfigError, match="sharded already"):
        ShardSettings(sharded, tmp_path / "other", 2)
    with pytest.raises(ConfigError, match="own directory"):
        ShardSettings(source, source / "inside", 2)
    for field, value in {"dtype": "int3", "lm_head_bits": 4}.items():
        with pytest.raises(ConfigError, match=field):
            ShardSettings(source, tmp_path / "new", 2, **{field: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="does not divide"):
        shard_model(ShardSettings(source, tmp_path / "new", 3), is_shown=False)
    with pytest.raises(ConfigError, match="exists"):
        shard_model(ShardSettings(source, sharded, 2), is_shown=False)


def test_too_little_space_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_checkpoint(tmp_path / "source")
    settings = ShardSettings(source, tmp_path / "new", 2)
    monkeypatch.setattr(ShardSettings, "num_bytes", lambda self, config: 1 << 60)
    with pytest.raises(ConfigError, match="GiB more"):
        shard_model(settings, is_shown=False)


def test_a_run_goes_on_after_whole_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_checkpoint(tmp_path / "source")
    made: list[int] = []
    original = MossForCausalLM.packed_parts

    def counted(self: MossForCausalLM, *arguments: object) -> object:
        made.append(self.transformer.wte._group.rank)
        if made == [0, 1]:
            raise KeyboardInterrupt
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(MossForCausalLM, "packed_parts", counted)
    settings = ShardSettings(source, tmp_path / "new", 2)
    with pytest.raises(KeyboardInterrupt):
        shard_model(settings, is_shown=False)
    assert not settings.destination.exists()
    shard_model(settings, is_shown=False)
    assert made == [0, 1, 1]
    assert not (tmp_path / "new.partial").exists()
    assert resolve_weights(_config(settings.destination)).tp_size == 2


def test_the_kind_of_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "has_amx", lambda: True)
    assert kinds.vector_kind() == "AMX"
    monkeypatch.setattr(kinds, "has_amx", lambda: False)
    for feature, kind in {"avx512bf16": "AVX-512 BF16", "avx512f": "AVX-512", "": "AVX2"}.items():
        monkeypatch.setattr(kinds, "has_cpu_feature", lambda name, own=feature: name == own)
        assert kinds.vector_kind() == kind
