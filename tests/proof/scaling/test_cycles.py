"""Replicas come and go under streams, and nobody notices: once, and as chaos ten times."""

import asyncio
from pathlib import Path

import pytest

from tests.proof.figures import check
from tests.proof.scaling.cycles import CROWD, DELAY_S, DOWN_S, MOST, run_cycles, scaled_server

NUM_CYCLES = 10


@pytest.mark.timeout(240)
def test_replicas_come_and_go_and_nobody_notices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scaled_server(tmp_path, monkeypatch) as server:
        result = asyncio.run(run_cycles(server, 1))
    assert result.faults == [] and result.num_cut == 0
    assert not result.is_flapping
    (cycle,) = result.cycles
    assert cycle.down_s <= DELAY_S + DOWN_S, cycle
    assert cycle.drained_s > 1, "no replica had a stream when it was stopped"


@pytest.mark.chaos
@pytest.mark.timeout(1200)
def test_they_do_so_ten_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with scaled_server(tmp_path, monkeypatch) as server:
        result = asyncio.run(run_cycles(server, NUM_CYCLES))
    cycles = result.cycles
    second, slowest = [sorted(c.second_s for c in cycles), max(c.down_s for c in cycles)]
    flapping = "flapping" if result.is_flapping else "no flapping"
    text = (
        f"{NUM_CYCLES} cycles 1 → {MOST} → 1 under {CROWD} streams: {result.num_cut} of"
        f" {result.num_streams} streams cut, {len(result.faults)} faults, {flapping}; the second"
        f" replica after {second[len(second) // 2]:.1f} s (longest {second[-1]:.1f} s), back at"
        f" one {slowest:.1f} s after the load at the latest, with a delay of {DELAY_S} s"
    )
    is_back = slowest <= DELAY_S + DOWN_S
    is_whole = result.num_cut == 0 and result.faults == []
    check("scaling", text, is_back and is_whole and not result.is_flapping)
