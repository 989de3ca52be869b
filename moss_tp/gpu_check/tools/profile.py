"""What a GPU does in a step: kernels, how long they take, and how long it waits for the host."""

import json
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

_WORK = {"kernel", "gpu_memcpy", "gpu_memset"}
_TOP = 15


@dataclass(frozen=True)
class Event:
    """Work of the device; times in µs."""

    name: str
    category: str
    start: float
    duration: float

    @property
    def end(self) -> float:
        return self.start + self.duration

    @property
    def is_input(self) -> bool:
        """The copy with which a step begins."""
        return self.category == "gpu_memcpy" and "HtoD" in self.name.replace(" ", "")


def profiled(run: Callable[[], object], device: torch.device) -> list[Event]:
    """The device's work while `run` runs, in order; nothing on a CPU."""
    if device.type != "cuda":
        run()
        return []
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        run()
        torch.cuda.synchronize(device)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "trace.json"
        profiler.export_chrome_trace(str(file))
        return events_of(json.loads(file.read_text("utf-8")))


def events_of(trace: dict[str, Any]) -> list[Event]:
    """Of a trace in Chrome's format."""
    found = (
        Event(event["name"], event["cat"], float(event["ts"]), float(event["dur"]))
        for event in trace["traceEvents"]
        if event.get("ph") == "X" and event.get("cat") in _WORK
    )
    return sorted(found, key=lambda event: event.start)


def steps_of(events: Sequence[Event]) -> list[list[Event]]:
    """The work of each step: what a step's copy from the host begins. The first and the last are
    left out, for they may be cut."""
    steps: list[list[Event]] = []
    for event in events:
        if event.is_input:
            steps.append([])
        if steps:
            steps[-1].append(event)
    return [step for step in steps if any(e.category == "kernel" for e in step)][1:-1]


def idle_us(steps: Sequence[Sequence[Event]]) -> float:
    """The median time between a step's last kernel and the next one's first, less the copies
    between them."""
    gaps = []
    for before, after in pairwise(steps):
        begin = max(event.end for event in before if event.category == "kernel")
        first = next(event for event in after if event.category == "kernel")
        copies = [e.duration for e in (*before, *after) if begin <= e.start < first.start]
        gaps.append(max(0.0, first.start - begin - sum(copies)))
    return statistics.median(gaps) if gaps else 0.0


def launches(steps: Sequence[Sequence[Event]]) -> int:
    """The most kernels of a step."""
    return max((sum(e.category == "kernel" for e in step) for step in steps), default=0)


def times(events: Sequence[Event], num_steps: int) -> list[dict[str, Any]]:
    """The device's time by kernel, in µs a step, the longest first."""
    total, count = Counter[str](), Counter[str]()
    for event in events:
        total[event.name] += event.duration  # type: ignore[assignment]
        count[event.name] += 1
    steps = max(1, num_steps)
    return [
        {"name": name[:80], "us": round(us / steps, 1), "calls": round(count[name] / steps, 1)}
        for name, us in total.most_common(_TOP)
    ]
