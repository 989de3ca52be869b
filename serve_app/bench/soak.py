"""Resident memory over many short requests: a leak shows as growth."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

import psutil

from serve_app.bench.load.drive import StepEngine, drive
from serve_app.bench.load.workload import same_requests
from serve_app.bench.reporting.figures import Chart, Section

PROMPT, NEW = 16, 4
BATCH = 64
NUM_SAMPLES = 20
MIB = 2**20


class ResidentMemory(Protocol):
    """Resident bytes of all ranks together."""

    def __call__(self) -> int: ...


@dataclass(frozen=True)
class Sample:
    """Resident memory after `num_requests` requests."""

    num_requests: int
    rss_bytes: int


def resident_memory() -> int:
    """Resident bytes of this process and its descendants."""
    process = psutil.Process()
    family = (process, *process.children(recursive=True))
    return sum(member.memory_info().rss for member in family)


def soak(
    engine: StepEngine,
    num_requests: int,
    random: Random,
    vocab_size: int,
    memory: ResidentMemory = resident_memory,
) -> list[Sample]:
    """About NUM_SAMPLES samples while `num_requests` short requests run in batches."""
    samples: list[Sample] = []
    done = 0
    while done < num_requests:
        batch = min(BATCH, num_requests - done)
        drive(engine, same_requests(random, batch, PROMPT, NEW, vocab_size))
        done += batch
        if done == num_requests or done >= (len(samples) + 1) * num_requests / NUM_SAMPLES:
            samples.append(Sample(done, memory()))
    return samples


def slope_bytes(samples: Sequence[Sample]) -> float:
    """Growth per request: the least-squares slope over the later half, after caches have filled."""
    later = samples[len(samples) // 2 :]
    if len(later) < 2:
        return 0.0
    mean_x = sum(sample.num_requests for sample in later) / len(later)
    mean_y = sum(sample.rss_bytes for sample in later) / len(later)
    covariance = sum((s.num_requests - mean_x) * (s.rss_bytes - mean_y) for s in later)
    return covariance / sum((s.num_requests - mean_x) ** 2 for s in later)


def soak_section(name: str, samples: Sequence[Sample]) -> Section:
    """The first, middle and last sample and the growth per request."""
    row = {
        "engine": name,
        "requests": samples[-1].num_requests,
        "rss_first_MiB": round(samples[0].rss_bytes / MIB, 1),
        "rss_half_MiB": round(samples[len(samples) // 2].rss_bytes / MIB, 1),
        "rss_last_MiB": round(samples[-1].rss_bytes / MIB, 1),
        "bytes_a_request": round(slope_bytes(samples), 1),
    }
    points: list[tuple[object, float]] = [(s.num_requests, s.rss_bytes / MIB) for s in samples]
    chart = Chart("line", "requests", "RSS of all ranks, MiB", {name: points})
    return Section("soak", f"memory: prompts of {PROMPT} tokens, {NEW} new", [row], [chart])
