"""CUDA behind the protocol, on a device."""

import time
from collections.abc import Callable

import pytest
import torch

from moss_tp.accelerator.choose import accelerator_of

pytestmark = pytest.mark.gpu


def wait(is_done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_done():
        assert time.monotonic() < deadline


def test_graphs_share_a_pool_and_fork() -> None:
    gpu = accelerator_of("cuda")
    source, out = gpu.pinned((1 << 20,), torch.float32), gpu.pinned((1 << 20,), torch.float32)
    x, y = (torch.zeros(1 << 20, device=gpu.device) for _ in range(2))

    def work() -> None:
        gpu.transfer.wait(gpu.compute.record())
        gpu.transfer.copy(y, source)
        x.mul_(2)
        gpu.compute.wait(gpu.transfer.record())
        x.add_(y * 3)

    graphs = [gpu.graph(work) for _ in range(3)]
    assert x.sum().item() == 0, "recording runs nothing"
    source.fill_(1)
    for graph in graphs:
        graph.replay()
    gpu.compute.copy(out, x)
    wait(gpu.compute.record().is_done)
    assert (out == 3 * 2 * 2 + 3 * 2 + 3).all()


def test_a_pool_outlives_its_graphs() -> None:
    gpu = accelerator_of("cuda")
    x = torch.zeros(1 << 20, device=gpu.device)
    for _ in range(3):
        graphs = [gpu.graph(lambda: x.add_(x * 0 + 1)) for _ in range(2)]
        graphs[0].replay()
        wait(gpu.compute.record().is_done)
        del graphs
    assert (x == 3).all()


def test_an_event_of_work_that_runs_is_not_done() -> None:
    gpu = accelerator_of("cuda")
    x = torch.zeros(8192, 8192, device=gpu.device)
    for _ in range(20):
        gpu.compute.launch(lambda: torch.mm(x, x))
    assert not gpu.compute.record().is_done()
    wait(gpu.compute.record().is_done)
