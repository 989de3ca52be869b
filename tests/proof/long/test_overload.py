"""A real engine with its admission under three times its capacity, from clients in a hurry.

The load is an open loop: requests arrive whether others are answered or not. Each may take
MAX_TIME_S; without a limit of their clients, requests of minutes ahead would be taken in. A reply
is as long as takes REPLY_S beside as many as are served best, on whatever machine: so the engine is
the bottleneck, not HTTP, and what was taken in can end while the server becomes normal again.
"""

import asyncio
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.endless_model import make_endless_model
from tests.proof.figures import check, percentile
from tests.proof.long.load import Load, connections
from tests.proof.server import DigestProcess, digest_server

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
SECONDS = float(os.environ.get("PROOF_OVERLOAD_S", "60"))
PEAK_CLIENTS, PEAK_S = (16, 32, 64), 15.0
TIMES = 3
MAX_TIME_S = 10.0
REPLY_S, FIRST_TOKENS = 3.5, 200
MIN_GOODPUT, NORMAL_WITHIN_S = 0.8, 5.0


async def _num_tokens(server: DigestProcess, http: aiohttp.ClientSession) -> int:
    """Of a reply that takes REPLY_S beside most clients."""
    rate = 0.0
    for _ in range(2):  # the first warms up
        load = Load(server.url, server.api_keys["ann"], FIRST_TOKENS)
        rate = await load.keep_busy(http, PEAK_CLIENTS[-1], PEAK_S)
    return max(1, round(REPLY_S * rate * FIRST_TOKENS / PEAK_CLIENTS[-1]))


async def _peak(load: Callable[..., Load], http: aiohttp.ClientSession) -> float:
    """Whole replies a second to as many clients as are served best."""
    rates = []
    for num_clients in PEAK_CLIENTS:
        clients = load()
        rates.append(await clients.keep_busy(http, num_clients, PEAK_S))
        assert set(clients.statuses) == {"200"}, clients.statuses
    print("peak", dict(zip(PEAK_CLIENTS, rates, strict=True)))
    return max(rates)


async def _alone_s(load: Callable[..., Load], http: aiohttp.ClientSession) -> float:
    """The longest of a few requests on an idle server."""
    client = load()
    for _ in range(5):
        await client.ask(http)
    return max(client.took)


async def _normal_after(
    load: Callable[..., Load], http: aiohttp.ClientSession, alone_s: float
) -> float:
    """Seconds until a request is answered as on an idle server, or takes half a second longer."""
    began = time.monotonic()
    while time.monotonic() < began + 60:
        client = load()
        if await client.ask(http) == "200" and client.took[0] <= alone_s + 0.5:
            return time.monotonic() - began
        await asyncio.sleep(0.1)
    return float("inf")


async def _overload(server: DigestProcess) -> None:
    async with connections() as http:
        num_tokens = await _num_tokens(server, http)
        load = partial(Load, server.url, server.api_keys["ann"], num_tokens)
        alone_s, peak = await _alone_s(load, http), await _peak(load, http)
        storm = load(MAX_TIME_S)
        goodput = await storm.offer(http, TIMES * peak, SECONDS)
        normal_s = await _normal_after(load, http, alone_s)
        await asyncio.gather(*storm.pending)
    share = goodput / peak
    shown = ", ".join(f"{n} × {status}" for status, n in sorted(storm.statuses.items()))
    text = (
        f"{num_tokens} tokens each: {shown}; goodput {share:.0%} of {peak:.1f}/s; refused in"
        f" {percentile(storm.refused_in, 0.95) * 1000:.0f} ms (p95); normal after {normal_s:.1f} s"
    )
    is_clean = set(storm.statuses) <= {"200", "429", "503", "cut"}
    check("overload", text, is_clean and share >= MIN_GOODPUT and normal_s <= NORMAL_WITHIN_S)
    assert storm.num_sent > 2 * peak * SECONDS, "the clients were too slow"


def test_three_times_the_capacity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_endless_model(tmp_path / "model")
    with digest_server(tmp_path, monkeypatch, engine=model) as server:
        asyncio.run(_overload(server))
