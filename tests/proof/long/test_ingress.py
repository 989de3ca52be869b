"""One of two ingresses is killed under streamed turns, whose readers come back or do not."""

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from tests.e2e.components import processes_of
from tests.proof.figures import check, percentile
from tests.proof.history.record import Act
from tests.proof.history.run import NO_LIMIT, History
from tests.proof.long.streams import all_ended, asker_of, begin_and_leave, record_of
from tests.proof.server import DigestProcess, digest_server
from tests.proof.test_forms import shown, stream_turns

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
NUM_TURNS = 50
# Of the digest, in seconds: 4 of thoughts, which are told as a whole, then 20 of the reply, in the
# middle of which comes the kill. So a gap is the server's and not the model's.
PAUSE_S, NUM_WORDS = 0.1, 50
KILL_AFTER_S = 12.0
# Of the turns of which nobody knew that their ingress had died: lease, patrol and what was left.
END_S = 60.0


async def _disturbed(server: DigestProcess) -> None:
    async with httpx.AsyncClient(limits=NO_LIMIT, trust_env=False) as http:
        asker = asker_of(server, http)
        streaming = asyncio.create_task(stream_turns(asker, NUM_TURNS, "key"))
        await asyncio.sleep(KILL_AFTER_S)
        processes_of(server, "ingress")[0].kill()
        disturbed = await streaming
        gaps = [*asker.record.gaps]
        alone = await stream_turns(asker, NUM_TURNS, "key")
    faults = History(server.site, 0, record=asker.record).faults_so_far()
    num_same = sum(shown(a) == shown(b) for a, b in zip(disturbed, alone, strict=True))
    p95 = percentile(gaps, 0.95)
    text = f"{num_same} of {NUM_TURNS} identical, {len(gaps)} broken, p95 gap {p95:.2f} s"
    holds = num_same == NUM_TURNS and faults == [] and p95 <= 5
    check("ingress", f"{text}, longest {max(gaps, default=0):.2f} s", holds)
    assert len(gaps) >= NUM_TURNS // 5, "too few streams broke for this to mean anything"


def test_fifty_streams_through_the_death_of_an_ingress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with digest_server(tmp_path, monkeypatch, pause_s=PAUSE_S, num_words=NUM_WORDS) as server:
        asyncio.run(_disturbed(server))


async def _left_alone(server: DigestProcess) -> None:
    """The store is looked at, and the server only asked when all turns have to be over."""
    async with httpx.AsyncClient(limits=NO_LIMIT, trust_env=False) as http:
        asker = asker_of(server, http)
        left = await asyncio.gather(*(begin_and_leave(asker, n) for n in range(NUM_TURNS)))
        await asyncio.sleep(KILL_AFTER_S)
        processes_of(server, "ingress")[0].kill()
        began = time.monotonic()
        endless = await all_ended(server.store, left, END_S)
        took = time.monotonic() - began
        records = [await record_of(server.store, each.act.uid or "", each.turn) for each in left]
        num_taken_up = sum(record.get("attempts", "0") != "0" for record in records)
        acts = [each.act for each in left]
        for act in acts:
            read = await asker.ask("GET", f"/v1/sessions/{act.uid}?all=true")
            for turn in read.json()["tree"]:
                act.ack(turn)
        alone = await stream_turns(asker, NUM_TURNS, "key")
    num_same = sum(_is_same(a, b) for a, b in zip(acts, alone, strict=True))
    text = f"{NUM_TURNS - len(endless)} of {NUM_TURNS} ended, {num_same} identical"
    holds = endless == [] and num_same == NUM_TURNS
    check("nobody", f"{text}, {num_taken_up} taken up; the last {took:.1f} s after the kill", holds)
    assert num_taken_up >= NUM_TURNS // 5, "too few turns lost their ingress"


def _is_same(left: Act, alone: Act) -> bool:
    """Whether it is there once, and is what it is undisturbed."""
    return len(left.answers) == 1 and shown(left) == shown(alone)


def test_fifty_turns_that_nobody_asks_for_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with digest_server(tmp_path, monkeypatch, pause_s=PAUSE_S, num_words=NUM_WORDS) as server:
        asyncio.run(_left_alone(server))
