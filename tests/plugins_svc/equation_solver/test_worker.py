"""The worker's loop in this process, without its limits: a line for a line, whatever happens."""

import io
import json
import sys

import pytest

from plugins_svc.equation_solver import solver, worker


@pytest.fixture(autouse=True)
def no_limits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Limits would stay on this process; what was limited, in order."""
    limited: list[str] = []
    monkeypatch.setattr(worker, "limit_process", lambda: limited.append("process"))
    monkeypatch.setattr(worker, "limit_cpu", lambda: limited.append("cpu"))
    monkeypatch.setattr(worker, "WARM_UP", ("2x=1",))
    return limited


def answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *texts: str
) -> list[list[str]]:
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    worker.main()
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_each_call_has_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_limits: list[str]
) -> None:
    found = answers(monkeypatch, capsys, "x=1", "?", "x+y=3;x-y=1\n", "x^2=4")
    assert found == [[], ["x = 1"], [], ["x = 2", "y = 1"], ["x_0 = -2", "x_1 = 2"]]
    assert no_limits == ["process", *["cpu"] * 4], "CPU time is allowed anew for each call"


@pytest.mark.parametrize("error", [RecursionError("deep"), KeyError("x"), AssertionError()])
def test_any_error_of_sympy_is_no_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def solve(text: str) -> list[str]:
        raise error

    monkeypatch.setattr(solver, "solve", solve)
    assert answers(monkeypatch, capsys, "x=1", "x=2") == [[], [], []]


def test_defence_what_sympy_prints_is_no_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def solve(text: str) -> list[str]:
        if text != "2x=1":  # the warm-up comes before the first line
            print('["x = 666"]')
        return ["x = 1"]

    monkeypatch.setattr(solver, "solve", solve)
    assert answers(monkeypatch, capsys, "x=1") == [[], ["x = 1"]]


def test_defence_a_worker_without_memory_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is left of it cannot be trusted; its parent starts a new one."""

    def solve(text: str) -> list[str]:
        if text == "2x=1":
            return []
        raise MemoryError

    monkeypatch.setattr(solver, "solve", solve)
    with pytest.raises(SystemExit, match="1"):
        answers(monkeypatch, capsys, "x=1", "x=2")
    assert capsys.readouterr().out == "[]\n"
