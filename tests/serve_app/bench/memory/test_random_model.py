"""Random models: the published shape, repeated values, finite logits, nothing left on disk."""

import shutil
from collections import namedtuple
from math import prod
from pathlib import Path

import pytest
import torch

from moss_tp.config import ModelConfig
from moss_tp.errors import ConfigError
from moss_tp.gpu_check.tools.shapes import MOSS
from moss_tp.weights.names import published_tensors
from serve_app.bench.hardware.machine import Machine
from serve_app.bench.memory import memory_bench
from serve_app.bench.memory.engine_process import Memory, Work, engine_process
from serve_app.bench.memory.memory_bench import (
    MemoryRun,
    MemorySpec,
    measure_memory,
    memory_sections,
)
from serve_app.bench.memory.random_model import (
    SHAPES,
    RepeatedTile,
    random_checkpoint,
    write_random_model,
)

MACHINE = Machine("cpu", 2, 2, "bfloat16", 100e9, 1e12)
Usage = namedtuple("Usage", "total used free")


def spec(directory: Path, shape: str = "tiny") -> MemorySpec:
    return MemorySpec(shape, 4, 1, 8, directory, 1)


def test_a_tile_is_repeated() -> None:
    tile = torch.arange(7)
    whole = RepeatedTile((4, 5), tile)
    assert whole[0:4].tolist() == [[(5 * i + j) % 7 for j in range(5)] for i in range(4)]
    assert whole[:, 1:4].shape == (4, 3)
    assert whole[(slice(None), slice(2, 4))].shape == (4, 2)
    assert whole[1:3].dtype == torch.int64


@pytest.mark.parametrize("bits", [0, 4, 8])
def test_it_has_the_tensors_of_the_published_model(bits: int) -> None:
    config = MOSS.quantized(bits).with_layers(1, 107008).config
    with random_checkpoint(config) as checkpoint:
        checkpoint.check(config)
        wanted = {name: tensor.shape for name, tensor in published_tensors(config).items()}
        assert {name: header.shape for name, header in checkpoint.headers.items()} == wanted
        words = sum(prod(shape) for name, shape in wanted.items() if name.endswith("qweight"))
        assert words * 4 * bool(bits) == 12 * 6144**2 * bits // 8


def test_an_engine_serves_it_in_a_process_of_its_own(tmp_path: Path) -> None:
    own = spec(tmp_path)
    shape = SHAPES["tiny"].quantized(4)
    config = write_random_model(shape, tmp_path / "model", 1, 8, is_shown=False)
    assert [path.name for path in tmp_path.iterdir() if "source" in path.name] == []
    engine_spec = memory_bench._engine_spec(own, config, tmp_path / "model")
    with engine_process(engine_spec, config.vocab_size) as engine:
        assert engine.loaded.peak >= engine.loaded.now > 50 << 20
        assert engine.ready_s > 0
        done = engine.run(Work(40, 9))
        assert done.decode_s > 0
        assert done.memory.now > 50 << 20
    assert engine.pss_bytes == 0, "the process has ended"


def test_a_full_disk_is_refused_beforehand_and_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10, 5, 5 << 20))
    with pytest.raises(ConfigError, match="GiB are free there"):
        measure_memory(spec(tmp_path, "moss-moon-003"), is_shown=False)
    assert list(tmp_path.iterdir()) == []


def test_figures_are_beside_the_published_ones(tmp_path: Path) -> None:
    own = spec(tmp_path, "moss-moon-003")
    config: ModelConfig = MOSS.quantized(4).config
    points = (Memory(8 << 30, 9 << 30), Memory(9 << 30, 9 << 30), Memory(10 << 30, 11 << 30))
    run = MemoryRun(config, 60, 9 << 30, points, 9.5, 18, 0.25)
    memory, start = memory_sections(own, run, MACHINE)
    assert [row["PSS_GiB"] for row in memory.rows] == [8, 9, 10]
    assert [row["published_GiB"] for row in memory.rows] == [7.3, 11.2, 24.2]
    assert start.rows[0]["decode_tok_s"] == 4
    # 7.1 GiB of levels, a head of 0.6 in int8, scales: at 100 GB/s about 0.087 s of 0.25.
    assert start.rows[0]["share_of_bandwidth"] == "35%"
