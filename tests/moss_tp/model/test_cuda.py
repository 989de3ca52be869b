"""The model with CUDA's kernels, on CPU tensors: their references, or interpreted.

Tolerance: as in `test_parity`, another order of summation changes fp32 logits of size ~10 by 1e-5.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from moss_tp.config import ModelConfig
from moss_tp.errors import ConfigError, StepMemoryError
from moss_tp.kernels.cuda.runtime.launches import counted_launches
from moss_tp.kernels.cuda.runtime.switch import interpreted
from moss_tp.kernels.device_plan import DevicePlan, StepLimits
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.layers.kv_cache import KVCache
from moss_tp.model import MossForCausalLM, load_model
from moss_tp.parallel.tp_group import TPGroup
from tests.moss_tp.kernels.cuda.ordered_dot import ordered_dot
from tests.support.devices.device_plans import device_plan
from tests.support.run_distributed import run_distributed
from tests.support.tiny_moss import VOCAB_SIZE, make_checkpoint

__all__ = ["ordered_dot"]

TOLERANCE = 1e-4
NUM_ROWS = 20
BLOCK_SIZE = 16
IDS = torch.arange(3, 3 + 7 * NUM_ROWS, 7) % 250
CPU = torch.device("cpu")
SINGLE = TPGroup.single("cpu")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("cuda") / "model", seed=3)


def plan_of(start: int, stop: int) -> AttentionPlan:
    """Rows `start` to `stop` of one sequence in blocks 2 and 1."""
    positions = np.arange(start, stop)
    tables = np.array([[2, 1]])
    slots = tables[0][positions // BLOCK_SIZE] * BLOCK_SIZE + positions % BLOCK_SIZE
    return AttentionPlan(
        positions, slots, np.array([stop - start]), np.array([stop]), tables, BLOCK_SIZE
    )


@dataclass
class Steps:
    """A model and its cache."""

    model: MossForCausalLM
    kv: KVCache

    @classmethod
    def load(cls, path: Path, group: TPGroup, dtype: torch.dtype, back_end: str) -> "Steps":
        config = ModelConfig.from_dir(path)
        model = load_model(path, config, group, dtype, back_end)
        cache = model.kernels.cache
        return cls(model, KVCache.allocate(config, group, 3, BLOCK_SIZE, dtype, cache))

    def run(self, start: int, stop: int) -> Tensor | None:
        """Logits of all rows of a step."""
        ids, plan = IDS[start:stop], plan_of(start, stop)
        rows = torch.arange(stop - start)
        if self.model.kernels.memory is None:
            return self.model.forward(ids, plan, rows, self.kv)
        return self.model.forward(ids.int(), self.device_plan(start, stop), rows.int(), self.kv)

    def device_plan(self, start: int, stop: int) -> DevicePlan:
        return device_plan(plan_of(start, stop))


def logits_of(group: TPGroup, path: Path, dtype: torch.dtype, back_end: str) -> Tensor | None:
    """Of a prompt, then of a token after it."""
    steps = Steps.load(path, group, dtype, back_end)
    parts = steps.run(0, NUM_ROWS - 1), steps.run(NUM_ROWS - 1, NUM_ROWS)
    whole = [part for part in parts if part is not None]
    return torch.cat(whole) if whole else None


def single(path: Path, dtype: torch.dtype, back_end: str) -> Tensor:
    logits = logits_of(SINGLE, path, dtype, back_end)
    assert logits is not None
    return logits


def test_logits_equal_those_of_the_cpu_s_kernels(path: Path) -> None:
    wanted = single(path, torch.float32, "cpu")
    torch.testing.assert_close(
        single(path, torch.float32, "cuda"), wanted, atol=TOLERANCE, rtol=TOLERANCE
    )
    with interpreted():
        actual = single(path, torch.float32, "cuda")
    torch.testing.assert_close(actual, wanted, atol=TOLERANCE, rtol=TOLERANCE)
    assert actual.shape == (NUM_ROWS, VOCAB_SIZE)


def test_two_ranks_equal_one(path: Path) -> None:
    both = run_distributed(logits_of, 2, path, torch.float32, "cuda")
    assert both[1] is None
    wanted = single(path, torch.float32, "cuda")
    torch.testing.assert_close(both[0], wanted, atol=TOLERANCE, rtol=TOLERANCE)


def test_logits_in_the_model_s_dtype_last_until_the_next_step(path: Path) -> None:
    steps = Steps.load(path, SINGLE, torch.float32, "cuda")
    copied = steps.run(0, 3)
    assert copied is not None
    kept, rows = copied.clone(), torch.arange(3, dtype=torch.int32)
    raw = steps.model.logits(IDS[:3].int(), steps.device_plan(0, 3), rows, steps.kv)
    assert raw is not None
    assert torch.equal(raw, kept)
    steps.run(3, 6)
    assert torch.equal(copied, kept)
    assert not torch.equal(raw, kept)
    half = Steps.load(path, SINGLE, torch.float16, "cuda")
    raw = half.model.logits(IDS[:3].int(), half.device_plan(0, 3), rows, half.kv)
    assert raw is not None and raw.dtype == torch.float16


@pytest.mark.usefixtures("ordered_dot")
def test_a_row_has_the_same_bits_in_any_step(path: Path) -> None:
    """As a prompt's, and decoded after a shorter one; interpreted, so with the kernels' own order
    of operations."""
    whole, cut = (Steps.load(path, SINGLE, torch.float16, "cuda") for _ in range(2))
    with interpreted():
        all_rows = whole.run(0, NUM_ROWS)
        cut.run(0, NUM_ROWS - 1)
        last = cut.run(NUM_ROWS - 1, NUM_ROWS)
    assert all_rows is not None and last is not None
    assert torch.equal(all_rows[-1:], last)


def test_launches_of_a_step(path: Path) -> None:
    """Six a layer at most, and the last sum, the last norm and the head: 207 of 34 layers."""
    steps = Steps.load(path, SINGLE, torch.float32, "cuda")
    with counted_launches() as counts:
        steps.run(0, 1)
    assert counts.total() <= 6 * len(steps.model.transformer.h) + 3
    assert counts["gemm"] == len(steps.model.transformer.h) + 1


def test_a_step_beyond_what_is_reserved_is_refused(path: Path) -> None:
    steps = Steps.load(path, SINGLE, torch.float32, "cuda")
    memory = steps.model.kernels.memory
    assert memory is not None
    memory.reserve(StepLimits(8, 1, 8, 1, 2 * BLOCK_SIZE), CPU)
    assert steps.run(0, 8) is not None
    with pytest.raises(StepMemoryError):
        steps.run(8, 17)
    assert steps.run(8, 16) is not None


def test_models_without_kernels_are_refused(tmp_path: Path) -> None:
    config = ModelConfig.from_dir(make_checkpoint(tmp_path / "m", heads=12, head_dim=10))
    with pytest.raises(ConfigError, match="head size"):
        MossForCausalLM(config, SINGLE, torch.float16, "cuda")
    fitting = ModelConfig.from_dir(make_checkpoint(tmp_path / "n"))
    with pytest.raises(ConfigError, match="float64"):
        MossForCausalLM(fitting, SINGLE, torch.float64, "cuda")
