"""A stop drains every ingress replica first; one that does not respond is not waited for."""

from dataclasses import dataclass, field
from typing import Any, Self

import pytest

from serve_app.cli.serve import draining
from serve_app.cli.serve.draining import drained_on_stop
from serve_app.cli.serve.ray_watch import RayDiedError
from serve_app.cli.serve.stop_signals import StopRequested
from serve_app.http.drain import END_S


@dataclass
class FakeIngress:
    """A handle whose replicas answer `begin_drain` with `running`; keeps the calls."""

    running: list[int | Exception]
    error: Exception | None = None
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    def broadcast(self, *call: Any) -> Self:
        if self.error is not None:
            raise self.error
        self.calls.append(call)
        return self

    def results(self, timeout_s: float, return_exceptions: bool) -> list[int | Exception]:
        assert return_exceptions
        self.calls.append((timeout_s,))
        return self.running


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(draining, "_wait_for_proxies", found.append)
    return found


def stop(ingress: FakeIngress, error: BaseException) -> list[str]:
    """What is said when the block ends with `error`."""
    said: list[str] = []
    with pytest.raises(type(error)), drained_on_stop(ingress, 30, said.append):
        raise error
    return said


def test_a_stop_lets_all_replicas_drain(waits: list[float]) -> None:
    ingress = FakeIngress([2, 1])
    said = stop(ingress, StopRequested())
    assert said == ["waiting for running replies (3), at most 30 s"]
    assert ingress.calls[0] == ("begin_drain",)
    assert ingress.calls[2] == ("finish_drain", 30)
    (timeout_s,) = ingress.calls[3]
    assert timeout_s > 30 + END_S, "each replica ends what still runs after that"
    assert len(waits) == 1


def test_an_idle_server_says_nothing() -> None:
    assert stop(FakeIngress([0]), StopRequested()) == []


def test_a_dead_replica_does_not_cut_the_turns_of_the_others() -> None:
    ingress = FakeIngress([RuntimeError("dead"), 1])
    assert stop(ingress, StopRequested()) == ["waiting for running replies (1), at most 30 s"]
    assert ("finish_drain", 30) in ingress.calls


def test_an_ingress_that_does_not_respond_ends_the_wait(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stop(FakeIngress([], TimeoutError("no answer")), StopRequested())
    assert "no answer" in capsys.readouterr().err, "the log has the traceback"


def test_nothing_is_drained_when_ray_is_gone() -> None:
    ingress = FakeIngress([1])
    stop(ingress, RayDiedError("gone"))
    assert ingress.calls == []
