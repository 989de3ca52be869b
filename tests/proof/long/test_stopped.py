"""An ingress stands still under turns that it tells, and goes on when others have them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from tests.e2e.components import processes_of
from tests.proof.figures import check
from tests.proof.history.asking import Asker
from tests.proof.history.record import Act
from tests.proof.history.run import NO_LIMIT, History
from tests.proof.long.streams import asker_of, num_repeated, record_of
from tests.proof.server import DigestProcess, digest_server
from tests.proof.test_forms import shown, stream_turns

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
NUM_TURNS = 12
STOP_AFTER_S, STOP_S = 4.0, 40.0
PAUSE_S = 0.7  # so that turns still run when the process goes on
PATIENCE_S = 300  # longer than it is stopped: otherwise Serve would have replaced it


async def _one_commit(asker: Asker, act: Act) -> bool:
    read = await asker.ask("GET", f"/v1/sessions/{act.uid}?all=true")
    return [turn["id"] for turn in read.json()["tree"]] == [act.answers[0]["id"]]


async def _told(asker: Asker, act: Act) -> bool:
    """Whether a late reader is told all events; the record takes them down for the checker."""
    path = f"/v1/sessions/{act.uid}/turns/{act.answers[0]['id']}/events"
    end = await asker.follow("GET", path, turn=str(act.answers[0]["id"]))
    return not isinstance(end, httpx.Response) and end[0] == "done"


async def _stopped(server: DigestProcess) -> None:
    async with httpx.AsyncClient(limits=NO_LIMIT, trust_env=False) as http:
        asker = asker_of(server, http)
        streaming = asyncio.create_task(stream_turns(asker, NUM_TURNS, "key"))
        await asyncio.sleep(STOP_AFTER_S)
        holder = processes_of(server, "ingress")[0]
        holder.suspend()
        await asyncio.sleep(STOP_S)
        assert holder.is_running() and not streaming.done()
        holder.resume()
        acts = await streaming
        num_told = sum([await _told(asker, act) for act in acts])
        num_commits = sum([await _one_commit(asker, act) for act in acts])
        num_taken_up = await _num_taken_up(server, acts)
        assert holder.is_running(), "it was replaced"
        alone = await stream_turns(asker, NUM_TURNS, "key")
    faults = History(server.site, 0, record=asker.record).faults_so_far()
    num_same = sum(shown(a) == shown(b) for a, b in zip(acts, alone, strict=True))
    num_twice = num_repeated(asker.record.streams)
    text = (
        f"{NUM_TURNS} turns, {num_taken_up} taken up: {num_twice} events twice, {len(faults)} "
        f"faults, {num_commits} with one commit, {num_same} identical"
    )
    each = (num_told, num_commits, num_same)
    check("stopped", text, each == (NUM_TURNS,) * 3 and faults == [] and num_twice == 0)
    assert num_taken_up > 0, "it told none of them"


async def _num_taken_up(server: DigestProcess, acts: Sequence[Act]) -> int:
    records = [await record_of(server.store, a.uid or "", a.answers[0]["id"]) for a in acts]
    return sum(record["attempts"] != "0" for record in records)


def test_an_ingress_that_is_stopped_for_forty_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with digest_server(tmp_path, monkeypatch, pause_s=PAUSE_S, patience_s=PATIENCE_S) as server:
        asyncio.run(_stopped(server))
