"""The number of KV blocks for a given number of bytes, and the default."""

from typing import Any

import pytest

from moss_tp.engine.running import kv_budget
from moss_tp.engine.running.local_executor import LocalExecutor
from moss_tp.engine_config import EngineConfig
from moss_tp.errors import ConfigError

# 2 layers, K and V, 16 slots, hidden size 64, 4 bytes.
BLOCK_BYTES = 2 * 2 * 16 * 64 * 4


def num_blocks(model: str, **settings: Any) -> int:
    values = {"max_model_len": 250, **settings}
    executor = LocalExecutor(EngineConfig(model, dtype="float32", **values))
    executor.close()
    return executor.num_blocks


def test_the_default_is_eight_full_sequences(tiny_model: str) -> None:
    assert num_blocks(tiny_model) == 8 * 16


def test_the_default_is_at_most_a_quarter_of_the_free_memory(
    tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_budget, "free_memory", lambda _: 4 * 20 * BLOCK_BYTES)
    assert num_blocks(tiny_model) == 20
    monkeypatch.setattr(kv_budget, "free_memory", lambda _: 4 * 15 * BLOCK_BYTES)
    with pytest.raises(ConfigError, match="does not hold one sequence of 250 tokens"):
        num_blocks(tiny_model)


def test_kv_cache_bytes_is_not_exceeded(tiny_model: str) -> None:
    assert num_blocks(tiny_model, kv_cache_bytes=17 * BLOCK_BYTES - 1) == 16
    assert num_blocks(tiny_model, kv_cache_bytes=17 * BLOCK_BYTES) == 17


def test_int8_takes_one_byte_per_element_and_four_per_row(tiny_model: str) -> None:
    heads = 4
    block_bytes = 2 * 2 * 16 * (64 + heads * 4)
    assert num_blocks(tiny_model, kv_cache_bytes=17 * block_bytes, kv_cache_dtype="int8") == 17
