"""How backends are made."""

import os
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed import HashStore  # type: ignore[attr-defined]  # public, unstubbed

from moss_tp.parallel import backends
from moss_tp.parallel.backends import NCCL_ENVIRONMENT, nccl_backend
from moss_tp.parallel.ordered_sum import OrderedSum
from moss_tp.parallel.tp_group import TPGroup


class Nccl:
    """NCCL's backend as far as it reads the environment: when it is made."""

    class Options:
        _timeout = timedelta(0)

    def __init__(self, store: Any, rank: int, size: int, options: Options) -> None:
        self.environment = {name: os.environ[name] for name in NCCL_ENVIRONMENT}
        self.timeout = options._timeout


def test_nccl_is_told_to_end_nothing_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "ProcessGroupNCCL", Nccl, raising=False)
    monkeypatch.setenv("TORCH_NCCL_BLOCKING_WAIT", "1")
    made = nccl_backend(HashStore(), 0, 2, timedelta(seconds=7))
    assert made.timeout == timedelta(seconds=7)
    assert made.environment == NCCL_ENVIRONMENT
    assert set(NCCL_ENVIRONMENT.values()) == {"0"}
    # As it was: the process may have NCCL groups of its own.
    assert os.environ["TORCH_NCCL_BLOCKING_WAIT"] == "1"
    assert "TORCH_NCCL_ASYNC_ERROR_HANDLING" not in os.environ


def test_collectives_are_queued_on_the_current_stream() -> None:
    options = backends.on_current_stream(dist.AllreduceOptions())
    assert options.asyncOp is False


@pytest.mark.parametrize(
    ("device", "indexed"), [("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")]
)
def test_indexed_device(device: str, indexed: str) -> None:
    assert backends.indexed_device(device) == torch.device(indexed)


def test_what_nccl_returns_on_the_current_stream_needs_no_wait() -> None:
    """Nothing, from torch 2.11 on; work elsewhere, which is waited for."""
    waited: list[bool] = []

    class Work:
        def wait(self) -> None:
            waited.append(True)

    backends.wait_for(None)
    assert not waited
    backends.wait_for(Work())
    assert waited


@pytest.mark.parametrize("way", ["all_reduce", "gather", "broadcast", "one_shot", "by_shares"])
def test_every_collective_works_without_work(way: str) -> None:
    """Of a backend that returns None, as NCCL does."""
    asked = set[str]()

    class Silent:
        def __getattr__(self, name: str) -> Any:
            return lambda *args: asked.add(name)

    backend, x = Silent(), torch.zeros(8)
    group = TPGroup(0, 2, torch.device("cpu"), backend, backend)
    getattr(group if hasattr(group, way) else OrderedSum(backend, 1), way)(x)
    assert asked
