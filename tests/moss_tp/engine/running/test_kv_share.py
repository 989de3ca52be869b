"""The default size of the KV cache: which device's memory it counts, and its share."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from moss_tp.config import ModelConfig
from moss_tp.device import TRAITS
from moss_tp.engine.running import kv_budget
from moss_tp.engine.running.model_runner import ModelRunner
from moss_tp.engine_config import EngineConfig
from moss_tp.layers.kv_cache import KVCache

FREE = 10 << 30


def default_bytes(
    model: str, device: str, tp_size: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, int]:
    """Bytes of the chosen blocks and of one block, where FREE bytes are free on each device."""
    queried: list[str] = []

    def free_memory(name: str) -> int:
        queried.append(name)
        return FREE

    monkeypatch.setattr(kv_budget, "free_memory", free_memory)
    config, own = ModelConfig.from_dir(model), f"{device}:1"
    fields: dict[str, Any] = {"config": config, "cache_dtype": torch.float16}
    runner = cast(
        ModelRunner,
        SimpleNamespace(prepare=lambda: None, group=SimpleNamespace(device=own), **fields),
    )
    engine = EngineConfig(model, tp_size, device=device, dtype="float16")
    engine = engine.resolve(config)
    block = KVCache.bytes_per_block(config, tp_size, engine.block_size, torch.float16)
    chosen = kv_budget.choose_num_blocks(runner, engine) * block
    assert queried == [own], "the rank's own device counts"
    return chosen, block


@pytest.mark.parametrize("tp_size", [1, 4])
def test_the_share_of_a_gpu_does_not_depend_on_tp(
    tiny_model: str, tp_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, block = default_bytes(tiny_model, "cuda", tp_size, monkeypatch)
    assert 0 <= FREE * TRAITS["cuda"].kv_share - chosen < block + 1


def test_ranks_share_the_memory_of_a_cpu(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRAITS, "cpu", replace(TRAITS["cpu"], max_kv_sequences=None))
    chosen = [default_bytes(tiny_model, "cpu", tp_size, monkeypatch) for tp_size in (1, 2, 4)]
    for tp_size, (total, block) in zip((1, 2, 4), chosen, strict=True):
        assert 0 <= FREE * TRAITS["cpu"].kv_share / tp_size - total < block + 1
