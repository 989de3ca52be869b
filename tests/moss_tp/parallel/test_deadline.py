"""What may never return is left behind in time."""

import threading
import time
import weakref
from collections.abc import Callable

import pytest
import torch

from moss_tp.parallel import deadline
from moss_tp.parallel.deadline import end, poll, within
from moss_tp.parallel.tp_group import TPGroup
from tests.moss_tp.parallel.gloo_ranks import on_gloo


class Backend:
    """One whose `abort` takes until `may_end` is set, then raises if it `breaks`."""

    def __init__(self, *, hangs: bool = False, breaks: bool = False) -> None:
        self.may_end = threading.Event()
        self.breaks = breaks
        if not hangs:
            self.may_end.set()

    def abort(self) -> None:
        self.may_end.wait()
        if self.breaks:
            raise RuntimeError("broken")


class Destructor:
    """One that hangs when its last reference is dropped, as gloo does in a collective."""

    def __init__(self, may_end: threading.Event) -> None:
        self.may_end = may_end

    def abort(self) -> None:
        pass

    def __del__(self) -> None:
        self.may_end.wait()


def seconds_of(backends: list[object], limit: float = 0.2) -> float:
    start = time.monotonic()
    end(backends, seconds=limit)
    return time.monotonic() - start


def test_backends_that_end_are_not_waited_for() -> None:
    backend = Backend()
    is_gone = weakref.ref(backend)
    held: list[object] = [backend, Backend(breaks=True)]
    del backend
    assert seconds_of(held, limit=5) < 1
    assert held == []
    assert is_gone() is None


def test_a_backend_that_hangs_keeps_no_other_from_ending() -> None:
    hanging, other = Backend(hangs=True), Backend()
    is_gone = weakref.ref(other)
    held: list[object] = [other, hanging]
    del other
    assert 0.15 < seconds_of(held) < 2
    assert is_gone() is None
    hanging.may_end.set()


def test_a_destructor_that_hangs_is_left_behind() -> None:
    may_end = threading.Event()
    held: list[object] = [Destructor(may_end)]
    assert 0.15 < seconds_of(held) < 2
    may_end.set()


def test_what_a_backend_waits_for_is_dropped_meanwhile() -> None:
    """NCCL waits for the graphs that it was recorded in."""
    backend = Backend(hangs=True)
    start = time.monotonic()
    end([backend], [backend.may_end.set], seconds=5)
    assert time.monotonic() - start < 1


def test_closing_a_group_drops_its_graphs_once() -> None:
    group, graphs, calls = TPGroup.single("cpu"), {1: object()}, []
    group.before_close(graphs.clear)
    group.before_close(lambda: calls.append(1))
    group.close()
    group.close()
    assert graphs == {}
    assert calls == [1]


def test_work_within_its_time() -> None:
    assert within(5, "adding", lambda: 1 + 1) == 2
    with pytest.raises(ZeroDivisionError):
        within(5, "dividing", lambda: 1 // 0)
    may_end = threading.Event()
    with pytest.raises(RuntimeError, match=r"waiting has taken more than 0\.1 s"):
        within(0.1, "waiting", may_end.wait)
    may_end.set()


def test_polling_ends_with_its_deadline() -> None:
    answers = iter([False, False, True])
    poll(5, "counting", lambda: next(answers))
    with pytest.raises(RuntimeError, match="counting has taken"):
        poll(0.05, "counting", lambda: False)


@pytest.mark.parametrize("stuck_in", ["all_reduce", "gather", "broadcast", "barrier"])
def test_closing_does_not_wait_for_a_collective_with_a_hanging_peer(
    stuck_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread of rank 0 is in a collective that rank 1 never enters; gloo would wait."""
    monkeypatch.setattr(deadline.end, "__defaults__", ((), 0.3))
    collectives: dict[str, Callable[[TPGroup], object]] = {
        "all_reduce": lambda group: group.all_reduce(torch.ones(3)),
        "gather": lambda group: group.gather(torch.ones(3)),
        "broadcast": lambda group: group.broadcast(torch.ones(1 << 22)),
        "barrier": lambda group: group.barrier(),
    }

    def run(group: TPGroup) -> float:
        if group.rank == 1:
            is_closed.wait()
            return 0

        def collective() -> None:
            with pytest.raises(RuntimeError):
                collectives[stuck_in](group)

        stuck = threading.Thread(target=collective, daemon=True)
        stuck.start()
        time.sleep(0.1)
        assert stuck.is_alive()
        start = time.monotonic()
        group.close()
        is_closed.set()
        return time.monotonic() - start

    is_closed = threading.Event()
    assert on_gloo(2, run, timeout_s=2)[0] < 1
