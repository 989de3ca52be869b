"""The accelerators that need no GPU, and what the lazy one shows."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from moss_tp.accelerator.base import Accelerator
from moss_tp.accelerator.choose import accelerator_of
from moss_tp.accelerator.eager import EagerAccelerator
from moss_tp.accelerator.null import NullAccelerator
from tests.support.devices.lazy_accelerator import LazyAccelerator


def lazy_early() -> LazyAccelerator:
    return LazyAccelerator(is_transfer_early=True)


FACTORIES: list[Callable[[], Accelerator]] = [EagerAccelerator, LazyAccelerator, lazy_early]
LAZY = [LazyAccelerator, lazy_early]
each = pytest.mark.parametrize("make", FACTORIES)


def scalars(*values: float) -> list[Tensor]:
    return [torch.tensor([value]) for value in values]


@each
def test_a_queue_runs_in_order(make: Callable[[], Accelerator]) -> None:
    gpu = make()
    source, x = gpu.pinned((1,), torch.float32), torch.zeros(1)
    out = gpu.pinned((1,), torch.float32)
    source.fill_(3)
    gpu.compute.copy(x, source)
    gpu.compute.launch(lambda: x.mul_(2))
    graph = gpu.graph(lambda: x.add_(1))
    graph.replay()
    graph.replay()
    gpu.compute.copy(out, x)
    assert gpu.compute.record().is_done()
    assert out.item() == 8


@each
def test_a_wait_orders_two_queues(make: Callable[[], Accelerator]) -> None:
    gpu = make()
    x, y, z = scalars(1, 0, 0)
    gpu.compute.launch(lambda: x.add_(1))
    gpu.transfer.wait(gpu.compute.record())
    gpu.transfer.copy(y, x)
    gpu.compute.wait(gpu.transfer.record())
    gpu.compute.copy(z, y)
    gpu.compute.launch(lambda: x.add_(1))
    assert gpu.compute.record().is_done()
    assert (z.item(), x.item()) == (2, 3)


@each
def test_a_graph_forks_and_joins(make: Callable[[], Accelerator]) -> None:
    gpu = make()
    x, y, z = scalars(1, 0, 0)

    def work() -> None:
        x.add_(1)
        gpu.transfer.wait(gpu.compute.record())
        gpu.transfer.copy(y, x)
        gpu.compute.wait(gpu.transfer.record())
        gpu.compute.launch(lambda: z.add_(y))

    graph = gpu.graph(work)
    assert x.item() == 1, "recording runs nothing"
    graph.replay()
    graph.replay()
    assert gpu.compute.record().is_done()
    assert z.item() == 2 + 3


def test_lazy_shows_an_output_that_is_read_too_early() -> None:
    gpu = LazyAccelerator()
    (x,), out = scalars(5), gpu.pinned((1,), torch.float32)
    gpu.compute.copy(out, x)
    event = gpu.compute.record()
    assert out.item() == 0
    assert event.is_done()
    assert out.item() == 5


def test_lazy_shows_an_input_that_is_changed_too_early() -> None:
    gpu = LazyAccelerator()
    (x,), source = scalars(0), gpu.pinned((1,), torch.float32)
    source.fill_(1)
    gpu.compute.copy(x, source)
    source.fill_(2)
    assert gpu.compute.record().is_done()
    assert x.item() == 2


def test_lazy_runs_up_to_the_event_only() -> None:
    gpu = LazyAccelerator()
    (x,) = scalars(0)
    gpu.compute.launch(lambda: x.add_(1))
    event = gpu.compute.record()
    gpu.compute.launch(lambda: x.add_(1))
    assert event.is_done()
    assert x.item() == 1


def test_lazy_shows_a_missing_wait_for_a_transfer() -> None:
    gpu = LazyAccelerator()
    source, weight, out = scalars(7, 0, 0)
    gpu.transfer.copy(weight, source)
    gpu.compute.copy(out, weight)
    assert gpu.compute.record().is_done()
    assert out.item() == 0


def test_an_early_transfer_shows_a_buffer_that_is_overwritten_in_use() -> None:
    for make, read in ((LazyAccelerator, 0), (lazy_early, 7)):
        gpu = make()
        source, weight, out = scalars(7, 0, 0)
        gpu.compute.copy(out, weight)
        gpu.transfer.copy(weight, source)  # it should wait for `compute`
        assert gpu.compute.record().is_done()
        assert out.item() == read


@pytest.mark.parametrize("make", LAZY)
def test_lazy_refuses_a_graph_that_does_not_join(make: Callable[[], LazyAccelerator]) -> None:
    gpu = make()
    never = gpu.compute.record()
    gpu.compute.launch(lambda: None)
    later = gpu.compute.record()
    gpu.graph(lambda: gpu.transfer.wait(later)).replay()
    assert never.is_done()
    if gpu.transfer.is_early:
        return  # the wait is over when the graph runs
    with pytest.raises(RuntimeError, match="has not joined"):
        gpu.compute.record().is_done()


def test_lazy_shows_queues_that_wait_for_each_other() -> None:
    gpu = LazyAccelerator()
    gpu.compute.launch(lambda: gpu.compute.wait(gpu.transfer.record()))
    gpu.compute.launch(lambda: None)
    gpu.transfer.wait(gpu.compute.record())
    with pytest.raises(RuntimeError, match="wait for each other"):
        gpu.compute.record().is_done()


def test_null_does_nothing() -> None:
    gpu = NullAccelerator()
    x, y = scalars(1, 2)
    gpu.compute.launch(lambda: x.zero_())
    gpu.compute.copy(x, y)
    gpu.graph(lambda: x.zero_()).replay()
    assert gpu.compute.record().is_done()
    assert x.item() == 1


def test_the_cpu_has_the_eager_one() -> None:
    assert isinstance(accelerator_of("cpu"), EagerAccelerator)
