"""G1 to G10 on a real server whose processes are killed at random.

The short form is part of `make test`; `make chaos` runs it with 16 clients for ten minutes, or as
PROOF_SECONDS, PROOF_CLIENTS, PROOF_SEED and PROOF_KILL_EVERY_S say.
"""

import asyncio
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.proof.figures import note, percentile
from tests.proof.history.asking import TENANTS
from tests.proof.history.record import canary_of
from tests.proof.history.run import History
from tests.proof.server import KILLED, DigestProcess, digest_server, stop

SECONDS = float(os.environ.get("PROOF_SECONDS", "600"))
NUM_CLIENTS = int(os.environ.get("PROOF_CLIENTS", "16"))
SEED = int(os.environ.get("PROOF_SEED", "2"))
KILL_EVERY_S = float(os.environ.get("PROOF_KILL_EVERY_S", "8"))


async def _run(
    server: DigestProcess, num_clients: int, seconds: float, every_s: float, seed: int
) -> tuple[History, list[str]]:
    async with History(server.site, num_clients, str(seed), patience_s=60) as history:
        killing = asyncio.create_task(server.kill_often(every_s, KILLED, seed))
        working = asyncio.create_task(history.work(seconds))
        await asyncio.sleep(seconds)
        await stop(killing)
        await working
        faults = await history.check()
    print(f"killed {server.killed}; {history}; {faults}")
    return history, faults


def _told(server: DigestProcess, history: History, faults: list[str], seed: int) -> str:
    """What the table says of a run."""
    killed = ", ".join(f"{n} {name}" for name, n in Counter(server.killed).items() if name)
    num_kills = sum(name != "" for name in server.killed)
    gaps = history.record.gaps
    return (
        f"{len(faults)} faults; {history.num_acked} turns acked of {len(history.record.acts)} by"
        f" {history.num_clients} clients (seed {seed}) through {num_kills} kills ({killed});"
        f" {len(gaps)} broken streams, p95 gap {percentile(gaps, 0.95):.1f} s"
    )


def _logged_canaries(server: DigestProcess) -> list[str]:
    """Log files that hold a text of a client."""
    logs = [path for path in server.directory.rglob("*.log") if path.is_file()]
    assert logs
    texts = {path: path.read_text("utf-8", "replace") for path in logs}
    return [str(p) for p, text in texts.items() for t in TENANTS if canary_of(t) in text]


@pytest.mark.timeout(400)
def test_the_guarantees_hold_through_a_few_kills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with digest_server(tmp_path, monkeypatch) as server:
        history, faults = asyncio.run(_run(server, 6, 30, 4, 1))
        assert faults == []
        assert _logged_canaries(server) == []
        assert len(set(server.killed) - {""}) >= 4, server.killed
        assert history.num_acked >= 20


@pytest.mark.chaos
@pytest.mark.timeout(SECONDS + 1200)
def test_the_guarantees_hold_for_ten_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with digest_server(tmp_path, monkeypatch) as server:
        history, faults = asyncio.run(_run(server, NUM_CLIENTS, SECONDS, KILL_EVERY_S, SEED))
        leaks = _logged_canaries(server)
        told = _told(server, history, faults + leaks, SEED)
        note("kills", f"{SECONDS:g} s: {told}", not faults and not leaks)
        assert faults == [] and leaks == []
        if len(KILLED) * KILL_EVERY_S * 2 <= SECONDS:
            assert set(server.killed) >= set(KILLED)
        assert history.num_acked >= SECONDS / 2
