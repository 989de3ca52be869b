"""What the ranks of one host pay for meeting: all-reduces, and the broadcast that begins a step.

Every figure is taken twice, through shared memory and over gloo on loopback. How long a message
takes is from the sender's clock to the receiver's: one clock, as all are on one host.
"""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import torch

from moss_tp.errors import ConfigError
from moss_tp.parallel.tp_group import TPGroup
from serve_app.bench.figures import Section, middle, quantile

HOST, TIMEOUT_S = "127.0.0.1", 60
WARM_UP = 20
STEP_INTS = 300  # of a step of 32 decodes with some blocks each
IDLE_S = 1.0


@dataclass(frozen=True)
class CollectivesSpec:
    """`num_bytes` of each all-reduce, in fp32; `pauses_ms` before each broadcast."""

    tp: int
    num_bytes: tuple[int, ...]
    pauses_ms: tuple[int, ...]
    rounds: int


@dataclass(frozen=True)
class Latencies:
    """In seconds, one a round."""

    what: str
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Found:
    """One way on one rank; `idle_cpu` is the share of a core that waiting took."""

    latencies: tuple[Latencies, ...]
    idle_cpu: float


def measure_collectives(spec: CollectivesSpec, repeats: int) -> dict[str, list[list[Found]]]:
    """By way, for every repeat each rank's: taken in turns."""
    found: dict[str, list[list[Found]]] = {"shared memory": [], "gloo": []}
    for _ in range(repeats):
        for way, runs in found.items():
            runs.append(_on_all_ranks(spec, share_memory=way == "shared memory"))
    return found


def collectives_sections(found: dict[str, list[list[Found]]], tp: int) -> list[Section]:
    """As the ranks above 0 saw them: they receive broadcasts, and they are the ones that wait."""
    latencies, waiting = [], []
    for way, runs in found.items():
        followers = [rank for run in runs for rank in run[1:]]
        for index, named in enumerate(followers[0].latencies):
            seconds = [s for rank in followers for s in rank.latencies[index].seconds]
            half, late = (round(quantile(seconds, share) * 1e6, 1) for share in (0.5, 0.99))
            latencies.append({"way": way, "what": named.what, "p50_us": half, "p99_us": late})
        cpu = middle([rank.idle_cpu for rank in followers])
        waiting.append({"way": way, "seconds": IDLE_S, "of_a_core": round(cpu, 4)})
    return [
        Section("collectives", f"collectives of {tp} ranks", latencies),
        Section("waiting", "processor time of a rank that waits for a step", waiting),
    ]


def _on_all_ranks(spec: CollectivesSpec, share_memory: bool) -> list[Found]:
    store = TPGroup.listen(HOST)
    with ProcessPoolExecutor(spec.tp - 1, mp_context=get_context("spawn")) as pool:
        others = [
            pool.submit(_rank, rank, store.port, spec, share_memory) for rank in range(1, spec.tp)
        ]
        own = _rank(0, store.port, spec, share_memory)
        return [own, *(other.result() for other in others)]


def _rank(rank: int, port: int, spec: CollectivesSpec, share_memory: bool) -> Found:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    group = TPGroup.join(rank, spec.tp, (HOST, port), "cpu", TIMEOUT_S, share_memory=share_memory)
    try:
        if group.shares_memory != share_memory:
            raise ConfigError("ranks cannot share memory on this machine")
        latencies = [_all_reduces(group, size, spec.rounds) for size in spec.num_bytes]
        latencies += [_broadcasts(group, pause, spec.rounds) for pause in spec.pauses_ms]
        return Found(tuple(latencies), _idle_cpu(group))
    finally:
        group.close()
        torch.set_num_threads(before)


def _all_reduces(group: TPGroup, num_bytes: int, rounds: int) -> Latencies:
    x = torch.ones(num_bytes // 4)

    def once() -> float:
        start = time.perf_counter()
        group.all_reduce(x)
        return time.perf_counter() - start

    return Latencies(f"all-reduce of {num_bytes} bytes", _measured(once, rounds))


def _broadcasts(group: TPGroup, pause_ms: int, rounds: int) -> Latencies:
    def once() -> float:
        group.barrier()
        if group.rank:
            sent_ns = int(group.broadcast_ints(None)[0])
            return (time.perf_counter_ns() - sent_ns) / 1e9
        time.sleep(pause_ms / 1e3)
        group.broadcast_ints(np.array([time.perf_counter_ns(), *range(STEP_INTS - 1)]))
        return 0.0

    return Latencies(f"broadcast of a step, {pause_ms} ms after the last", _measured(once, rounds))


def _measured(once: Callable[[], float], rounds: int) -> tuple[float, ...]:
    return tuple(once() for _ in range(WARM_UP + rounds))[WARM_UP:]


def _idle_cpu(group: TPGroup) -> float:
    """Of a core, while the others wait for rank 0's word."""
    group.barrier()
    begin, used = time.perf_counter(), time.process_time()
    if group.rank == 0:
        time.sleep(IDLE_S)
    group.broadcast_ints(np.zeros(1, np.int64) if group.rank == 0 else None)
    return (time.process_time() - used) / (time.perf_counter() - begin)
