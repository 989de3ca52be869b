"""Many short requests: does memory stay where it is?"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

import psutil

from serve_app.bench.load.drive import StepEngine, drive
from serve_app.bench.load.workload import same_requests
from serve_app.bench.reporting.figures import Chart, Section

PROMPT, NEW = 16, 4
WAVE = 64
SAMPLES = 20


class ResidentMemory(Protocol):
    """Bytes that all ranks hold together."""

    def __call__(self) -> int: ...


@dataclass(frozen=True)
class Sample:
    num_requests: int
    rss_bytes: int


def own_memory() -> int:
    """Of this process and of all it has started."""
    own = psutil.Process()
    return sum(process.memory_info().rss for process in (own, *own.children(recursive=True)))


def soak(
    engine: StepEngine,
    num_requests: int,
    random: Random,
    vocab_size: int,
    memory: ResidentMemory = own_memory,
) -> list[Sample]:
    """About SAMPLES samples while `num_requests` short requests run in waves."""
    samples: list[Sample] = []
    done = 0
    while done < num_requests:
        wave = min(WAVE, num_requests - done)
        drive(engine, same_requests(random, wave, PROMPT, NEW, vocab_size))
        done += wave
        if done == num_requests or done >= (len(samples) + 1) * num_requests / SAMPLES:
            samples.append(Sample(done, memory()))
    return samples


def slope_bytes(samples: Sequence[Sample]) -> float:
    """Growth a request: the least-squares line through the later half, when caches are filled."""
    later = samples[len(samples) // 2 :]
    if len(later) < 2:
        return 0.0
    mean_x = sum(sample.num_requests for sample in later) / len(later)
    mean_y = sum(sample.rss_bytes for sample in later) / len(later)
    moved = sum((s.num_requests - mean_x) * (s.rss_bytes - mean_y) for s in later)
    return moved / sum((s.num_requests - mean_x) ** 2 for s in later)


def soak_section(name: str, samples: Sequence[Sample]) -> Section:
    mib = 2**20
    row = {
        "engine": name,
        "requests": samples[-1].num_requests,
        "rss_first_MiB": round(samples[0].rss_bytes / mib, 1),
        "rss_half_MiB": round(samples[len(samples) // 2].rss_bytes / mib, 1),
        "rss_last_MiB": round(samples[-1].rss_bytes / mib, 1),
        "bytes_a_request": round(slope_bytes(samples), 1),
    }
    points: list[tuple[object, float]] = [(s.num_requests, s.rss_bytes / mib) for s in samples]
    chart = Chart("line", "requests", "RSS of all ranks, MiB", {name: points})
    return Section("soak", f"memory: prompts of {PROMPT} tokens, {NEW} new", [row], [chart])
