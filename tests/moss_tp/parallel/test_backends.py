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
