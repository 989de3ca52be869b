"""Memory and start of a model of MOSS's own size, beside what MOSS publishes for its model."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from moss_tp.config import ModelConfig
from moss_tp.device import threads_per_rank
from moss_tp.hardware.roofline import ITEM_BYTES, decode_cost, kv_bytes_per_token
from serve_app.bench.hardware.machine import Machine
from serve_app.bench.launch import EngineSpec
from serve_app.bench.memory.engine_process import EngineProcess, Memory, Work, engine_process
from serve_app.bench.memory.random_model import SHAPES, write_random_model
from serve_app.bench.reporting.figures import Row, Section

GIB = 1 << 30
DTYPE = "bfloat16"
_SPARE_TOKENS = 64  # blocks that the cache has besides
# MOSS's README, in GB, by bits: weights loaded, one turn, 2,048 tokens.
PUBLISHED = {4: (7.8, 12, 26), 8: (16, 24, 46), 0: (31, 42, 81)}


@dataclass(frozen=True)
class MemorySpec:
    """`bits` 0: not quantized. The model is written below `directory` and deleted at the end."""

    shape: str
    bits: int
    tp: int
    lm_head_bits: int | None
    directory: Path
    threads: int | None = None

    @property
    def turn(self) -> Work:
        """A short one."""
        return Work(128, 64)

    @property
    def full(self) -> Work:
        """One that ends with all the positions that the model has."""
        return Work(SHAPES[self.shape].positions - self.turn.new, self.turn.new)


@dataclass(frozen=True)
class MemoryRun:
    """Memory when it is loaded, after a turn, and with all positions; seconds until ready of a
    start with the files in the page cache, and of one without; seconds a decode step takes."""

    config: ModelConfig
    written_s: float
    file_bytes: int
    points: tuple[Memory, Memory, Memory]
    warm_s: float
    cold_s: float
    step_s: float


def measure_memory(spec: MemorySpec, *, is_shown: bool = True) -> MemoryRun:
    """Raises ConfigError where the disk is too small; deletes what it has written, whatever
    happens."""
    shape = SHAPES[spec.shape].quantized(spec.bits)
    root = Path(tempfile.mkdtemp(prefix="moss-memory-", dir=spec.directory))
    try:
        began, model = perf_counter(), root / "model"
        config = write_random_model(shape, model, spec.tp, spec.lm_head_bits, is_shown=is_shown)
        written_s = perf_counter() - began
        engine_spec = _engine_spec(spec, config, model)
        _drop_from_cache(model)
        with engine_process(engine_spec, config.vocab_size) as engine:
            cold_s = engine.ready_s
        with engine_process(engine_spec, config.vocab_size) as engine:
            points, step_s = _run(engine, spec)
            return MemoryRun(
                config=config,
                written_s=written_s,
                file_bytes=sum(file.stat().st_size for file in model.iterdir()),
                points=points,
                warm_s=engine.ready_s,
                cold_s=cold_s,
                step_s=step_s,
            )
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _run(engine: EngineProcess, spec: MemorySpec) -> tuple[tuple[Memory, Memory, Memory], float]:
    turn, full = engine.run(spec.turn), engine.run(spec.full)
    return (engine.loaded, turn.memory, full.memory), turn.decode_s / (spec.turn.new - 1)


def _engine_spec(spec: MemorySpec, config: ModelConfig, model: Path) -> EngineSpec:
    """With as much KV cache as one sequence takes that has all positions; no drafts, since a random
    model repeats itself."""
    tokens = config.max_position_embeddings + _SPARE_TOKENS
    kv_bytes = tokens * kv_bytes_per_token(config, ITEM_BYTES[DTYPE]) // spec.tp
    settings = (("kv_cache_bytes", kv_bytes), ("num_speculative_tokens", 0))
    threads = threads_per_rank(spec.tp, spec.threads)
    return EngineSpec(str(model), spec.tp, threads, DTYPE, settings)


def _drop_from_cache(directory: Path) -> None:
    """Has the system read the files from the disk again."""
    for file in directory.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def memory_sections(spec: MemorySpec, run: MemoryRun, machine: Machine) -> Sequence[Section]:
    """`machine` measured with all threads of all ranks."""
    config = run.config.with_rounded_head(spec.lm_head_bits)
    cost = decode_cost(config, 1, spec.turn.prompt + spec.turn.new // 2, ITEM_BYTES[DTYPE])
    points = ("loaded", f"a turn of {spec.turn.prompt} + {spec.turn.new} tokens", "all positions")
    is_moss = spec.shape == "moss-moon-003"
    rows: list[Row] = [
        {
            "point": point,
            "PSS_GiB": round(memory.now / GIB, 2),
            "peak_before_GiB": round(memory.peak / GIB, 2),
            "published_GiB": round(gb * 1e9 / GIB, 1) if is_moss else "",
        }
        for point, memory, gb in zip(points, run.points, PUBLISHED[spec.bits], strict=True)
    ]
    times = {
        "written_s": round(run.written_s, 1),
        "files_GiB": round(run.file_bytes / GIB, 2),
        "start_cold_s": round(run.cold_s, 1),
        "start_warm_s": round(run.warm_s, 1),
        "decode_tok_s": round(1 / run.step_s, 2),
        "share_of_bandwidth": f"{cost.limit_s(machine) / run.step_s:.0%}",
    }
    name = f"{spec.shape}, {spec.bits or 16} bits, tp {spec.tp}"
    return [
        Section("memory", f"{name}: all processes, mapped files included", rows),
        Section("start", f"{name}: from the start of the process until it can serve", [times]),
    ]
