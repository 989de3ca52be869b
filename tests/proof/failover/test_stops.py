"""A part of the server stands still for ten seconds under streams: nothing hangs, and no byte is
added when it goes on."""

import asyncio
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.components import processes_of
from tests.e2e.endless_model import make_endless_model
from tests.proof.failover.kills import Streams, differences
from tests.proof.figures import check
from tests.proof.history.run import NO_LIMIT, History
from tests.proof.long.streams import asker_of, num_repeated
from tests.proof.server import DigestProcess, digest_server
from tests.proof.test_forms import shown, stream_turns

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
STOP_AFTER_S, STOP_S = 0.5, 10.0
LIMIT_S = 60.0  # for streams that take seconds
NUM_TURNS, PAUSE_S = 8, 0.1


async def _stop(server: DigestProcess, part: str, after_s: float) -> None:
    """One process of a part; it may have been replaced when it goes on."""
    await asyncio.sleep(after_s)
    process = processes_of(server, part)[0]
    process.suspend()
    await asyncio.sleep(STOP_S)
    with suppress(psutil.NoSuchProcess):
        process.resume()


async def _under_streams(server: DigestProcess, part: str) -> None:
    async with httpx.AsyncClient(limits=NO_LIMIT, trust_env=False) as http:
        alone = await Streams(server, http).all()
        streams = Streams(server, http)
        stopping = asyncio.create_task(_stop(server, part, STOP_AFTER_S))
        async with asyncio.timeout(LIMIT_S):
            told = await streams.all()
        await stopping
    faults = differences(alone, told)
    text = f"{part}: {len(faults)} differences in {len(told)} streams"
    check(f"stop-{part}", f"{text}, longest wait {streams.longest_s:.1f} s", not faults)


@pytest.mark.parametrize(("part", "tp"), [("replica", 1), ("rank", 2)])
def test_a_group_that_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, tp: int
) -> None:
    model = make_endless_model(tmp_path / "model")
    flags = ("--replicas", "2", "--tp", str(tp))
    with digest_server(tmp_path, monkeypatch, *flags, engine=model) as server:
        asyncio.run(_under_streams(server, part))


async def _under_turns(server: DigestProcess, part: str) -> None:
    async with httpx.AsyncClient(limits=NO_LIMIT, trust_env=False) as http:
        asker = asker_of(server, http)
        stopping = asyncio.create_task(_stop(server, part, 2 * STOP_AFTER_S))
        async with asyncio.timeout(LIMIT_S):
            acts = await stream_turns(asker, NUM_TURNS, "key")
        await stopping
        alone = await stream_turns(asker, NUM_TURNS, "key")
    faults = History(server.site, 0, record=asker.record).faults_so_far()
    num_twice = num_repeated(asker.record.streams)
    num_same = sum(shown(a) == shown(b) for a, b in zip(acts, alone, strict=True))
    # What a plugin has not answered in time is in the reply as "No result."
    holds = not faults and not num_twice and (num_same == NUM_TURNS or part == "plugin")
    text = f"{part}: {NUM_TURNS} turns ended, {num_same} as undisturbed, {num_twice} events twice"
    check(f"stop-{part}", f"{text}, {len(faults)} faults", holds)


@pytest.mark.parametrize("part", ["plugin", "store"])
def test_a_part_of_turns_that_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    with digest_server(tmp_path, monkeypatch, pause_s=PAUSE_S) as server:
        asyncio.run(_under_turns(server, part))
