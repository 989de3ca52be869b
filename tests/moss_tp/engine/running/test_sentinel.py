"""The thread that notices a lost rank, while the engine starts and after."""

import threading

import pytest

from moss_tp.engine.running.sentinel import Sentinel
from moss_tp.errors import ConfigError, EngineDeadError
from tests.support.waiting import wait_until


def test_a_loss_is_told_to_whom_it_concerns_then_and_later() -> None:
    first: list[str] = []
    second: list[str] = []
    sentinel = Sentinel(lambda: "rank 1 ended", first.append)
    sentinel.join()
    sentinel.redirect(second.append)
    assert (first, second) == (["rank 1 ended"], ["rank 1 ended"])


def test_a_loss_after_the_start_is_told_once() -> None:
    first: list[str] = []
    second: list[str] = []
    ended = threading.Event()
    sentinel = Sentinel(lambda: "rank 1 ended" if ended.wait(10) else None, first.append)
    sentinel.redirect(second.append)
    ended.set()
    assert wait_until(lambda: bool(second), 10)
    assert (first, second) == ([], ["rank 1 ended"])


def test_a_rank_that_is_gone_says_why_a_moment_later() -> None:
    started = threading.Event()
    sentinel = Sentinel(lambda: "no memory" if started.wait(10) else None, lambda _: None)
    threading.Timer(0.1, started.set).start()
    cause = sentinel.explain(RuntimeError("rank 1 is gone"))
    assert isinstance(cause, EngineDeadError) and "no memory" in str(cause)


@pytest.mark.parametrize("error", [ConfigError("too large"), RuntimeError("a bug")])
def test_an_error_of_rank_0_is_its_own(error: Exception) -> None:
    sentinel = Sentinel(lambda: None, lambda _: None)
    assert sentinel.explain(error) is error
