"""What our router, heartbeats and metrics cost at 32 streams: a server with them and one without,
whose bursts alternate.

Streams keep the cores busy, so the throughput is what CPU time a token takes; unlike the time, it
is the same whatever else the machine does.
"""

import asyncio
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from statistics import median

import httpx
import pytest

from serve_app.bench.http_bench import Burst, StreamSpec, measure_streams
from serve_app.bench.load.cpu_time import KINDS, CpuMeter
from serve_app.bench.load.sse_client import SseClient
from tests.e2e.moss_process import MossProcess
from tests.proof.figures import check

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]
NUM_PAIRS = int(os.environ.get("PROOF_COST_PAIRS", "12"))
SPEC = StreamSpec(num_streams=32)
MOST = 0.03
ENGINE = "vllm:num_requests_running"


class PlainProcess(MossProcess):
    """A server without them."""

    def __init__(self, directory: Path, *flags: str) -> None:
        super().__init__(directory, *flags)
        self._command[2] = "tests.proof.cost.plain"


async def _burst(server: MossProcess, random: Random) -> Burst:
    async with SseClient(server.url) as client:
        return await measure_streams(client, SPEC, random, CpuMeter(server.process.pid).read)


def cpu_ms(burst: Burst) -> float:
    """CPU milliseconds of all processes per 1,000 tokens, the machine's other work not counted."""
    return sum(burst.cpu_ms(kind) for kind in burst.cpu_s)


def _pair(servers: Sequence[MossProcess], number: int) -> tuple[Burst, Burst]:
    """One burst of each, of the same prompts; who is first changes from pair to pair."""
    places = (0, 1) if number % 2 else (1, 0)
    bursts = {place: asyncio.run(_burst(servers[place], Random(number))) for place in places}
    return bursts[0], bursts[1]


def test_what_they_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    with ExitStack() as stack:
        servers: list[MossProcess] = []
        for name, kind in (("ours", MossProcess), ("plain", PlainProcess)):
            (tmp_path / name).mkdir()
            servers.append(stack.enter_context(kind(tmp_path / name, "--tp", "1")))
        pairs = [_pair(servers, number) for number in range(NUM_PAIRS + 1)][1:]
        counts = [ENGINE in httpx.get(f"{server.url}/metrics").text for server in servers]
    assert counts == [True, False]
    slower = median(plain.tok_s / ours.tok_s for ours, plain in pairs) - 1
    more_cpu = median(cpu_ms(ours) / cpu_ms(plain) for ours, plain in pairs) - 1
    tok_s = [median(pair[place].tok_s for pair in pairs) for place in range(2)]
    kinds = {
        kind: round(median(ours.cpu_ms(kind) - plain.cpu_ms(kind) for ours, plain in pairs), 1)
        for kind in KINDS
    }
    print(f"CPU ms a 1,000 tokens, more: {kinds}, of {cpu_ms(pairs[-1][1]):.0f}")
    text = (
        f"{NUM_PAIRS} pairs: {slower:+.1%} time and {more_cpu:+.1%} CPU time a token;"
        f" {tok_s[0]:.0f} tokens/s with them, {tok_s[1]:.0f} without"
    )
    check("cost", text, more_cpu <= MOST)
