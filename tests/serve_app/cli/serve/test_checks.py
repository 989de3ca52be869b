"""What is checked before a start: settings that pass, warnings, and errors that name the cause."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch
from redis.asyncio import Redis

from moss_tp.errors import CheckpointError, ConfigError
from serve_app.cli.serve.preflight import check_settings
from serve_app.demo.bundled import BUNDLED_MODEL
from serve_app.errors import StoreUnavailableError
from serve_app.settings import ServeSettings
from tests.support.config_only import config_only
from tests.support.tiny_moss import make_checkpoint, write_tokenizer


def some_settings(**fields: Any) -> ServeSettings:
    return ServeSettings.model_validate(
        {"model": str(BUNDLED_MODEL), "store": "embedded", "tp": 2, **fields}
    )


@pytest.fixture(
    params=[("maxmemory-policy", "allkeys-lru", "noeviction"), ("appendonly", "no", "yes")]
)
async def volatile_store(request: pytest.FixtureRequest, store_url: str) -> AsyncIterator[str]:
    """One that evicts, and one that keeps no file of what it was told."""
    name, value, before = request.param
    async with Redis.from_url(store_url) as raw:
        await raw.config_set(name, value)
        yield store_url
        await raw.config_set(name, before)


def test_the_demo_model_passes_without_a_warning(store_url: str) -> None:
    assert list(check_settings(some_settings())) == []
    assert list(check_settings(some_settings(store=store_url))) == []


async def test_a_store_that_may_lose_chats_is_refused_unless_that_is_allowed(
    volatile_store: str,
) -> None:
    settings = some_settings(store=volatile_store)
    with pytest.raises(ConfigError, match="--allow-volatile-store"):
        await asyncio.to_thread(check_settings, settings)
    allowed = settings.model_copy(update={"allow_volatile_store": True})
    (warning,) = await asyncio.to_thread(check_settings, allowed)
    assert warning.startswith("warning: the store")


def test_a_store_that_does_not_answer_is_an_error() -> None:
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:1"):
        check_settings(some_settings(store="redis://127.0.0.1:1/0"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tp": 3}, "tp 3 does not divide"),
        ({"max_model_len": 99_999}, "max_model_len 99999"),
        ({"plugins": ("abacus",)}, "no plugin abacus"),
        ({"dialogue": "plain", "plugins": ("calculator",)}, "without plugins"),
        ({"model": "./nowhere"}, "no model directory"),
        ({"cpu_offload_gb": 1}, "cpu_offload_gb is for device cuda"),
    ],
)
def test_settings_that_cannot_work_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, CheckpointError), match=message):
        check_settings(some_settings(**fields))


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model")
    settings = some_settings(model=str(model), dialogue="plain")
    assert list(check_settings(settings)) == []
    config = json.loads((model / "config.json").read_text("utf-8"))
    (model / "config.json").write_text(json.dumps({**config, "vocab_size": 10}), "utf-8")
    with pytest.raises(CheckpointError, match="the model only 10: they do not belong together"):
        check_settings(settings)


def test_dummy_weights_need_no_files_of_weights(tmp_path: Path) -> None:
    model = config_only(tmp_path)
    write_tokenizer(model)
    settings = some_settings(model=str(model), dialogue="plain")
    with pytest.raises(CheckpointError, match="there are no weights"):
        check_settings(settings)
    assert list(check_settings(settings.model_copy(update={"load_format": "dummy"}))) == []


@pytest.mark.parametrize(("found", "is_enough"), [(5, False), (6, True)])
def test_every_rank_of_every_replica_needs_a_gpu(
    found: int, is_enough: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    settings = some_settings(device="cuda", replicas=3)
    if is_enough:
        assert list(check_settings(settings)) == []
    else:
        with pytest.raises(ConfigError, match=r"6 GPUs are needed.* this machine has 5"):
            check_settings(settings)
