"""Settings that cannot work are refused by name."""

from dataclasses import dataclass
from importlib.metadata import EntryPoints
from typing import Any

import pytest

from moss_tp.device import TRAITS
from moss_tp.engine.running import executor
from moss_tp.engine.running.executor import find_executor
from moss_tp.engine.running.local_executor import LocalExecutor
from moss_tp.engine_config import EngineConfig
from moss_tp.errors import ConfigError


@dataclass(frozen=True)
class Positions:
    max_position_embeddings: int = 2048


@pytest.mark.parametrize(
    "changes",
    [
        {"tp_size": 0},
        {"device": "tpu"},
        {"dtype": "int8"},
        {"max_model_len": 1},
        {"kv_cache_bytes": 0},
        {"kv_cache_dtype": "bfloat16"},
        {"lm_head_bits": 4},
        {"block_size": 0},
        {"max_num_seqs": 0},
        {"max_num_batched_tokens": 63},
        {"max_mixed_prefill_tokens": 0},
        {"max_waiting": 0},
        {"max_queue_s": 0},
        {"num_speculative_tokens": -1},
        {"num_threads": 0},
        {"step_timeout_s": 0},
        {"cpu_offload_gb": -1, "device": "cuda"},
        {"cpu_offload_gb": float("nan"), "device": "cuda"},
        {"cpu_offload_gb": 1, "device": "cpu"},
        {"load_format": "gguf"},
    ],
)
def test_a_wrong_value_is_named(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        EngineConfig(model="m", **changes)


def test_resolve_takes_the_models_positions() -> None:
    assert EngineConfig(model="m").resolve(Positions()).context_length == 2048
    assert EngineConfig(model="m", max_model_len=100).resolve(Positions()).context_length == 100
    with pytest.raises(ConfigError, match="beyond the model's 2048"):
        EngineConfig(model="m", max_model_len=2049).resolve(Positions())
    for size in (4, 12):
        with pytest.raises(ConfigError, match=f"block_size cannot be {size} on cuda"):
            EngineConfig(model="m", device="cuda", block_size=size).resolve(Positions())
    with pytest.raises(ConfigError, match="resolve"):
        _ = EngineConfig(model="m").context_length


def test_the_first_steps_may_take_what_suits_the_device() -> None:
    assert EngineConfig(model="m").step_limit_s == TRAITS["cpu"].step_timeout_s
    assert EngineConfig(model="m", device="cuda").step_limit_s == TRAITS["cuda"].step_timeout_s
    assert EngineConfig(model="m", step_timeout_s=7).step_limit_s == 7


def test_prompts_share_a_step_as_suits_the_device() -> None:
    assert EngineConfig(model="m").mixed_prefill_limit == 128
    assert EngineConfig(model="m", device="cuda").mixed_prefill_limit == 1024
    assert EngineConfig(model="m", max_mixed_prefill_tokens=7).mixed_prefill_limit == 7


def test_an_unknown_executor_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown executor 'mpi'; there is local, ray"):
        find_executor("mpi")


def test_the_local_executor_needs_no_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout on the path has no entry points."""
    monkeypatch.setattr(executor, "entry_points", lambda group: EntryPoints())
    assert find_executor("local") is LocalExecutor
    with pytest.raises(ConfigError, match=r"there is local$"):
        find_executor("ray")
