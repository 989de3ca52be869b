"""Hours of chats on a real server: its processes neither grow nor keep descriptors."""

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression

import psutil
import pytest

from tests.e2e.components import processes_of
from tests.proof.figures import note
from tests.proof.history.run import History
from tests.proof.server import DigestProcess, digest_server

# Of the soak, in seconds. It is judged from two hours on: a shorter one still warms up.
SOAK_S = float(os.environ.get("PROOF_SOAK_S", "7200"))
JUDGED_S = 7200.0
NUM_CLIENTS = 8
SAMPLE_S = 30.0
MAX_SLOPE, MAX_DESCRIPTORS = 0.1, 1.02  # MB/min, and the second hour's end by its beginning
MIB = 2**20


@dataclass(frozen=True)
class Sample:
    """Of the server's own processes after `at_s` seconds; the store's is not one of them."""

    at_s: float
    rss_bytes: int
    num_descriptors: int


def _sample(server: DigestProcess, at_s: float) -> Sample:
    mine: list[psutil.Process] = [
        process
        for name in ("proxy", "controller", "ingress", "replica", "plugin")
        for process in processes_of(server, name)
    ]
    rss = sum(process.memory_info().rss for process in mine)
    return Sample(at_s, rss, sum(process.num_fds() for process in mine))


def slope_mib_min(samples: Sequence[Sample]) -> float:
    """The growth of the least-squares line through the samples."""
    minutes = [sample.at_s / 60 for sample in samples]
    return linear_regression(minutes, [sample.rss_bytes / MIB for sample in samples]).slope


async def _soak(server: DigestProcess, seconds: float) -> None:
    samples: list[Sample] = []
    async with History(server.site, NUM_CLIENTS, "soak", patience_s=60) as history:
        working = asyncio.create_task(history.work(seconds))
        began = time.monotonic()
        while not working.done():
            await asyncio.wait({working}, timeout=min(SAMPLE_S, seconds / 20))
            samples.append(_sample(server, time.monotonic() - began))
            history.record.streams.clear()  # the tests' own memory
        await working
    half = [sample for sample in samples if seconds / 2 <= sample.at_s <= seconds]
    slope = slope_mib_min(half)
    first, last = half[0].num_descriptors, half[-1].num_descriptors
    holds = slope < MAX_SLOPE and last <= first * MAX_DESCRIPTORS
    sizes = f"{half[0].rss_bytes / MIB:.0f} to {half[-1].rss_bytes / MIB:.0f} MB"
    text = f"{seconds / 3600:.2g} h: {slope:.3f} MB/min in the second half ({sizes})"
    text += f", descriptors {first} to {last}; {history.num_acked} turns acked"
    is_judged = seconds >= JUDGED_S
    note("soak", text, holds or not is_judged)
    assert history.num_acked > seconds / 4 and (holds or not is_judged)


@pytest.mark.chaos
@pytest.mark.timeout(SOAK_S + 900)
def test_hours_of_chats_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with digest_server(tmp_path, monkeypatch) as server:
        asyncio.run(_soak(server, SOAK_S))


def test_growth_is_seen() -> None:
    flat = [Sample(60.0 * i, (300 + i % 2) * MIB, 100) for i in range(60)]
    growing = [Sample(60.0 * i, 300 * MIB + i * MIB // 5, 100) for i in range(60)]
    assert abs(slope_mib_min(flat)) < MAX_SLOPE < slope_mib_min(growing)
