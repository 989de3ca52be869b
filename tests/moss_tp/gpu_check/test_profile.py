"""What a profiler's trace says about steps, on a trace made by hand."""

from pathlib import Path
from random import Random
from typing import Any

import pytest

from moss_tp.gpu_check.check import Check, Plan
from moss_tp.gpu_check.parts.speed import judge_steps
from moss_tp.gpu_check.tools import profile
from moss_tp.gpu_check.tools.engines import opened, requests
from moss_tp.gpu_check.tools.shapes import MOSS, TINY
from moss_tp.gpu_check.tools.speeds import prefill
from moss_tp.gpu_check.verdict import Verdict


def event(name: str, category: str, start: float, duration: float) -> dict[str, Any]:
    return {"ph": "X", "name": name, "cat": category, "ts": start, "dur": duration}


def trace(num_steps: int) -> dict[str, Any]:
    """A step of 1,000 µs: a copy in, 3 kernels with gaps of 5, a copy out, 40 µs of nothing."""
    events = [{"ph": "M", "name": "thread"}, event("cpu work", "cpu_op", 0, 10_000)]
    for step in range(num_steps):
        start = 1000.0 * step
        events.append(event("Memcpy HtoD (Pinned -> Device)", "gpu_memcpy", start, 10))
        events += [event(f"k{i % 2}", "kernel", start + 10 + 305 * i, 300) for i in range(3)]
        events.append(event("Memcpy DtoH (Device -> Pinned)", "gpu_memcpy", start + 920, 30))
    return {"traceEvents": events[::-1]}


def test_steps_and_what_is_between_them() -> None:
    events = profile.events_of(trace(5))
    steps = profile.steps_of(events)
    assert len(events) == 25 and len(steps) == 3  # the first and the last may be cut
    assert profile.launches(steps) == 3
    # From 920 to 1010, less the copies of 30 and 10.
    assert profile.idle_us(steps) == 50
    flat = [event for step in steps for event in step]
    times = {line["name"]: (line["us"], line["calls"]) for line in profile.times(flat, len(steps))}
    assert times["k0"] == (600, 2) and times["k1"] == (300, 1)


def test_nothing_is_profiled_without_a_gpu() -> None:
    assert profile.steps_of([]) == [] and profile.launches([]) == 0 and profile.idle_us([]) == 0


def test_what_was_not_measured_does_not_pass(tmp_path: Path) -> None:
    def judged(steps: list[list[profile.Event]]) -> list[Verdict]:
        found: list[Verdict] = []
        check = Check(Plan("cuda", "moss", tmp_path), lambda kind, name, value: found.append(value))
        judge_steps(check, MOSS, 64, steps)
        return found

    assert [v.passes for v in judged([])] == [False, False]
    seen = judged(profile.steps_of(profile.events_of(trace(5))))
    assert [v.passes for v in seen] == [True, True] and all(v.bar for v in seen)


def test_a_prompt_that_was_cached_is_no_prefill(tmp_path: Path) -> None:
    check = Check(Plan("cpu", "tiny", tmp_path), lambda kind, name, value: None)
    settings: dict[str, Any] = {"load_format": "dummy", "kv_cache_bytes": 1 << 22}
    with opened(check, TINY.write(tmp_path / "model"), "float32", **settings) as engine:
        one, another = (requests(Random(seed), 1, 40, 1, TINY.vocab_size) for seed in "12")
        prefill(engine, one)
        prefill(engine, another)
        with pytest.raises(RuntimeError, match="prefix cache"):
            prefill(engine, one)
