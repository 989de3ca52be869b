"""A part that hangs, crashes or fails costs only itself, and what it had found is kept."""

import time
from dataclasses import replace
from math import inf
from pathlib import Path

import psutil
import pytest

from moss_tp.gpu_check.check import Plan
from moss_tp.gpu_check.part import PARTS, Part, chosen_parts
from moss_tp.gpu_check.run import Result, run_parts
from moss_tp.gpu_check.verdict import Verdict, broken

SPEED = Verdict("a", 90, "tok/s", limit=100, bar=0.85)
HOME = "tests.moss_tp.gpu_check.probes"


def run(directory: Path, budget_s: float, *names: str) -> dict[str, Result]:
    parts = [Part(name, "", 3 if name == "hanging" else 30, home=HOME) for name in names]
    noted: list[str] = []
    plan = Plan("cpu", "tiny", directory)
    results = run_parts(parts, plan, budget_s, lambda part, _: noted.append(part.name))
    assert noted == list(names) == list(results)
    return results


def test_all_kinds_of_parts(tmp_path: Path) -> None:
    results = run(tmp_path, 60, "hanging", "crashing", "failing", "passing", "reading")
    assert [result.passes for result in results.values()] == [False, False, False, True, False]
    hanging = results["hanging"]
    assert [verdict.name for verdict in hanging.verdicts] == ["before it hung", "hanging"]
    assert hanging.error == "no end after 3 s" and hanging.seconds < 10
    assert "hanging.py" in hanging.figures["log"]  # where it hung
    assert results["crashing"].error == "its process is gone"
    assert results["failing"].error == "ValueError: out of cheese"
    assert "what it was doing" in results["failing"].figures["log"]
    assert results["passing"].figures == {"answer": 42}
    assert not results["reading"].error  # it misses its bar, no more


def test_what_a_part_has_started_ends_with_it(tmp_path: Path) -> None:
    run(tmp_path, 60, "hanging")
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while psutil.pid_exists(child) and psutil.Process(child).status() != "zombie":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_no_part_begins_without_time(tmp_path: Path) -> None:
    result = run(tmp_path, 1, "passing")["passing"]
    assert not result.passes and "no time was left" in result.error


def test_parts_come_in_order_with_what_they_need() -> None:
    assert [part.name for part in chosen_parts(["speed", "bits"])] == ["limits", "bits", "speed"]
    assert chosen_parts([]) == list(PARTS)
    with pytest.raises(ValueError, match="no part sped: choose from compiling"):
        chosen_parts(["sped"])


@pytest.mark.parametrize(
    ("verdict", "passes", "line"),
    [
        (SPEED, True, "a: 90 tok/s of 100 (90.0%) | at least 85%: pass"),
        (replace(SPEED, bar=0.91), False, "a: 90 tok/s of 100 (90.0%) | at least 91%: MISS"),
        (Verdict("a", 3, bar=0, sense="at most", note="x"), False, "a: 3 | at most 0: MISS (x)"),
        (Verdict("a", 0, bar=0, sense="at most"), True, "a: 0 | at most 0: pass"),
        (Verdict("a", 1234567.8, "GB/s"), True, "a: 1,234,568 GB/s"),
        (Verdict("a", inf, bar=0.1, sense="at most"), False, "a: inf | at most 0.1: MISS"),
        (broken("a", "gone"), False, "a: 0 | at least 1: MISS (gone)"),
    ],
)  # fmt: skip
def test_a_verdict_is_one_line(verdict: Verdict, passes: bool, line: str) -> None:
    assert verdict.passes is passes
    assert verdict.line == line
