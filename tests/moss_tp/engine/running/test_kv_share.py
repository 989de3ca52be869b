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
from moss_tp.errors import ConfigError
from moss_tp.kernels.cuda.attention.cache import PagedFormat
from moss_tp.kernels.kv_cache import BlockShape
from moss_tp.layers.kv_cache import ROWS, KVCache

FREE = 10 << 30


def default_bytes(
    model: str,
    device: str,
    tp_size: int,
    monkeypatch: pytest.MonkeyPatch,
    free: int = FREE,
    has_own_gpu: bool = True,
    **settings: Any,
) -> tuple[int, int]:
    """Bytes of the allocated blocks and of one block, where `free` bytes are free on each
    device."""
    queried: list[str] = []

    def free_memory(name: str) -> int:
        queried.append(name)
        return free

    monkeypatch.setattr(kv_budget, "free_memory", free_memory)
    config, own = ModelConfig.from_dir(model), f"{device}:1"
    cache_format = PagedFormat() if device == "cuda" else ROWS
    group = SimpleNamespace(device=own, can_be_recorded=has_own_gpu)
    fields: dict[str, Any] = {"config": config, "cache_dtype": torch.float16, "group": group}
    runner = cast(
        ModelRunner,
        SimpleNamespace(prepare=lambda: None, cache_format=cache_format, **fields),
    )
    engine = EngineConfig(model, tp_size, device=device, dtype="float16", **settings)
    engine = engine.resolve(config)
    block = KVCache.bytes_per_block(config, tp_size, engine.block_size, torch.float16, cache_format)
    chosen = (kv_budget.choose_num_blocks(runner, engine) + cache_format.spare_blocks) * block
    assert queried == [own], "the rank's own device counts"
    return chosen, block


@pytest.fixture
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_budget, "FULL_CACHES", 10**6)


@pytest.mark.usefixtures("unlimited")
@pytest.mark.parametrize("tp_size", [1, 4])
@pytest.mark.parametrize(("free", "left"), [(100 << 30, 5 << 30), (2 << 30, 512 << 20)])
def test_a_gpu_keeps_a_share_or_what_kernels_may_take_later(
    tiny_model: str, tp_size: int, free: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever tp is."""
    chosen, block = default_bytes(tiny_model, "cuda", tp_size, monkeypatch, free)
    assert 0 <= free - left - chosen < block + 1


@pytest.mark.usefixtures("unlimited")
def test_ranks_on_one_gpu_share_its_memory(
    tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, block = default_bytes(tiny_model, "cuda", 4, monkeypatch, has_own_gpu=False)
    assert 0 <= (FREE - (512 << 20)) // 4 - chosen < block + 1


def test_a_small_model_does_not_fill_a_large_gpu(
    tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine keeps accounts of each block."""
    chosen, block = default_bytes(tiny_model, "cuda", 1, monkeypatch, max_model_len=160)
    assert chosen // block - 1 == 4 * 64 * 10


def test_a_full_gpu_is_an_error_that_says_what_to_do(
    tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"cache of 0 bytes .* lower max_model_len, .*offload"):
        default_bytes(tiny_model, "cuda", 1, monkeypatch, free=400 << 20)


@pytest.mark.parametrize("dtype", [torch.float16, torch.int8])
def test_layers_of_a_gpu_share_few_allocations(dtype: torch.dtype) -> None:
    """torch rounds each up to 2 MiB; and no byte of one layer is another's."""
    shape, paged = BlockShape(2, 8, 16), PagedFormat()
    layers = paged.allocate_layers(3, 5, shape, dtype, torch.device("cpu"))
    parts = [part for layer in layers for part in layer if part is not None]
    storages = {part.untyped_storage().data_ptr(): part.untyped_storage() for part in parts}
    assert len(storages) == len(parts) // 3
    total = sum(storage.nbytes() for storage in storages.values())
    assert total == 3 * (5 + 1) * paged.bytes_per_block(shape, dtype)
    for number, part in enumerate(parts):
        assert part.shape[0] == 6 and part.is_contiguous()
        part.fill_(number)
    assert all((part == number).all() for number, part in enumerate(parts))


@pytest.mark.usefixtures("unlimited")
def test_ranks_share_the_memory_of_a_cpu(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRAITS, "cpu", replace(TRAITS["cpu"], max_kv_sequences=None))
    chosen = [default_bytes(tiny_model, "cpu", tp_size, monkeypatch) for tp_size in (1, 2, 4)]
    for tp_size, (total, block) in zip((1, 2, 4), chosen, strict=True):
        assert 0 <= FREE * TRAITS["cpu"].kv_share / tp_size - total < block + 1
