"""A group that dies in the middle of its streams costs a pause, and no byte differs.

The short form is part of `make test`; `make chaos` kills 200 groups, or as many as
PROOF_FAILOVER_KILLS says.
"""

import asyncio
import os
from pathlib import Path

import httpx
import pytest

from tests.e2e.components import processes_of
from tests.e2e.endless_model import make_endless_model
from tests.proof.failover.kills import Kills, Streams, differences, poisoned
from tests.proof.figures import check, percentile
from tests.proof.history.run import NO_LIMIT
from tests.proof.long.watched import noted
from tests.proof.server import DigestProcess, digest_server

NUM_KILLS = int(os.environ.get("PROOF_FAILOVER_KILLS", "200"))


async def _kills(kills: Kills, num: int, victim: str = "replica") -> Kills:
    async with httpx.AsyncClient(limits=NO_LIMIT, trust_env=False) as http:
        await kills.rounds(http, num, victim)
    return kills


@pytest.mark.timeout(400)
def test_a_few_groups_die_under_their_streams_and_one_request_ends_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_endless_model(tmp_path / "model")
    with digest_server(tmp_path, monkeypatch, "--replicas", "2", engine=model) as server:
        kills = asyncio.run(_kills(Kills(server, 2, 1), 3))
        assert kills.faults == []
        print(f"pauses {kills.pauses_s}")
        check("poison", *asyncio.run(_poison(server)))


@pytest.mark.timeout(300)
def test_the_only_group_dies_under_its_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_endless_model(tmp_path / "model")
    with digest_server(tmp_path, monkeypatch, engine=model) as server:
        kills = asyncio.run(_kills(Kills(server, 1, 1), 1))
        assert kills.faults == []
        print(f"pauses {kills.pauses_s}")


@pytest.mark.chaos
@pytest.mark.timeout(NUM_KILLS * 60 + 600)
@pytest.mark.parametrize(
    ("name", "num_groups", "tp", "victim", "bar_s"),
    [
        ("failover", 2, 1, "replica", 3.0),
        ("failover-rank", 2, 2, "rank", 3.0),
        ("failover-alone", 1, 1, "replica", 15.0),
    ],
)
def test_many_groups_die_under_their_streams(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    num_groups: int,
    tp: int,
    victim: str,
    bar_s: float,
) -> None:
    model = make_endless_model(tmp_path / "model")
    share = NUM_KILLS // 2 if name == "failover" else NUM_KILLS // 4
    flags = ("--replicas", str(num_groups), "--tp", str(tp))
    with digest_server(tmp_path, monkeypatch, *flags, engine=model) as server:
        kills = asyncio.run(_kills(Kills(server, num_groups, 2), share, victim))
        num_ranks = len(processes_of(server, "rank"))
    p95 = percentile(kills.pauses_s, 0.95)
    faulty = {fault.partition(":")[0] for fault in kills.faults}
    text = (
        f"{kills.num_kills - len(faulty)} of {kills.num_kills} byte-identical; longest pause:"
        f" p95 {p95:.1f} s, at most {max(kills.pauses_s):.1f} s"
    )
    holds = not kills.faults and p95 <= bar_s and num_ranks == num_groups * (tp - 1)
    check(name, text, holds)


async def _poison(server: DigestProcess) -> tuple[str, bool]:
    async with httpx.AsyncClient(limits=NO_LIMIT, trust_env=False) as http:
        alone = await Streams(server, http).all()
        streams = Streams(server, http)
        running = asyncio.create_task(streams.all())
        await asyncio.sleep(0.3)
        end = await poisoned(streams)
        told = await running
    groups = len(noted(server.effects, "poisoned"))
    lost = differences(alone, told)
    code = end.get("error", {}).get("code")
    text = f"ended {code} after {groups} groups; {len(lost)} differences in {len(told)} others"
    return text, (code, groups, lost) == ("engine_error", 2, [])
