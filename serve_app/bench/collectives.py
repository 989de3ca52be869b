"""Latency of the collectives between ranks of one host: all-reduce, and the broadcast of a step.

Each is measured over shared memory and over gloo on loopback. A broadcast is timed from the
sender's clock to the receiver's; on one host that is the same clock.
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
from serve_app.bench.hardware.machine import torch_threads
from serve_app.bench.reporting.figures import Row, Section, median, quantile

HOST, TIMEOUT_S = "127.0.0.1", 60
NUM_WARM_UP = 20
STEP_INTS = 300  # the ints of a step of 32 decodes with a few blocks each
IDLE_S = 1.0
TRANSPORTS = ("shared memory", "gloo")


@dataclass(frozen=True)
class CollectivesSpec:
    """`num_bytes` of each all-reduce, in fp32; `pauses_ms` before each broadcast."""

    tp: int
    num_bytes: tuple[int, ...]
    pauses_ms: tuple[int, ...]
    rounds: int


@dataclass(frozen=True)
class Latencies:
    """Seconds of one operation, one entry per round."""

    operation: str
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class RankResult:
    """One transport on one rank; `idle_cpu` is the share of a core used while waiting."""

    latencies: tuple[Latencies, ...]
    idle_cpu: float


def measure_collectives(spec: CollectivesSpec, repeats: int) -> dict[str, list[list[RankResult]]]:
    """By transport: each repeat's results, one per rank. The transports alternate."""
    results: dict[str, list[list[RankResult]]] = {transport: [] for transport in TRANSPORTS}
    for _ in range(repeats):
        for transport, repeated in results.items():
            repeated.append(_run_group(spec, share_memory=transport == "shared memory"))
    return results


def collectives_sections(results: dict[str, list[list[RankResult]]], tp: int) -> list[Section]:
    """As seen by the ranks above 0, which receive the broadcasts and wait for the next step."""
    workers = {
        transport: [rank for ranks in repeated for rank in ranks[1:]]
        for transport, repeated in results.items()
    }
    latencies = [row for transport, ranks in workers.items() for row in _rows(transport, ranks)]
    idle: list[Row] = []
    for transport, ranks in workers.items():
        cpu = median([rank.idle_cpu for rank in ranks])
        idle.append({"transport": transport, "seconds": IDLE_S, "cpu_share": round(cpu, 4)})
    return [
        Section("collectives", f"collectives of {tp} ranks", latencies),
        Section("waiting", "CPU use of a rank that waits for a step", idle),
    ]


def _rows(transport: str, ranks: list[RankResult]) -> list[Row]:
    """Quantiles of each operation, in microseconds."""
    rows = []
    for index, first in enumerate(ranks[0].latencies):
        seconds = [s for rank in ranks for s in rank.latencies[index].seconds]
        p50, p99 = (round(quantile(seconds, q) * 1e6, 1) for q in (0.5, 0.99))
        row = {"transport": transport, "operation": first.operation, "p50_us": p50, "p99_us": p99}
        rows.append(row)
    return rows


def _run_group(spec: CollectivesSpec, share_memory: bool) -> list[RankResult]:
    """Results of all ranks; rank 0 is this process."""
    store = TPGroup.listen(HOST)
    with ProcessPoolExecutor(spec.tp - 1, mp_context=get_context("spawn")) as pool:
        others = [
            pool.submit(_run_rank, rank, store.port, spec, share_memory)
            for rank in range(1, spec.tp)
        ]
        driver = _run_rank(0, store.port, spec, share_memory)
        return [driver, *(other.result() for other in others)]


def _run_rank(rank: int, port: int, spec: CollectivesSpec, share_memory: bool) -> RankResult:
    address = (HOST, port)
    with torch_threads(1):
        group = TPGroup.join(rank, spec.tp, address, "cpu", TIMEOUT_S, share_memory=share_memory)
        try:
            if group.shares_memory != share_memory:
                raise ConfigError("ranks cannot share memory on this machine")
            latencies = [_all_reduces(group, size, spec.rounds) for size in spec.num_bytes]
            latencies += [_broadcasts(group, pause, spec.rounds) for pause in spec.pauses_ms]
            return RankResult(tuple(latencies), _idle_cpu(group))
        finally:
            group.close()


def _all_reduces(group: TPGroup, num_bytes: int, rounds: int) -> Latencies:
    x = torch.ones(num_bytes // 4)

    def once() -> float:
        start = time.perf_counter()
        group.all_reduce(x)
        return time.perf_counter() - start

    return Latencies(f"all-reduce of {num_bytes} bytes", _repeat(once, rounds))


def _broadcasts(group: TPGroup, pause_ms: int, rounds: int) -> Latencies:
    def once() -> float:
        group.barrier()
        if group.rank:
            sent_ns = int(group.broadcast_ints(None)[0])
            return (time.perf_counter_ns() - sent_ns) / 1e9
        time.sleep(pause_ms / 1e3)
        group.broadcast_ints(np.array([time.perf_counter_ns(), *range(STEP_INTS - 1)]))
        return 0.0

    return Latencies(f"broadcast of a step, {pause_ms} ms after the last", _repeat(once, rounds))


def _repeat(once: Callable[[], float], rounds: int) -> tuple[float, ...]:
    return tuple(once() for _ in range(NUM_WARM_UP + rounds))[NUM_WARM_UP:]


def _idle_cpu(group: TPGroup) -> float:
    """The share of a core that a rank uses while it waits IDLE_S for rank 0's broadcast."""
    group.barrier()
    begin, used = time.perf_counter(), time.process_time()
    if group.rank == 0:
        time.sleep(IDLE_S)
    group.broadcast_ints(np.zeros(1, np.int64) if group.rank == 0 else None)
    return (time.process_time() - used) / (time.perf_counter() - begin)
