"""G1 to G10 on a real server whose processes are killed at random.

The short form is part of `make test`; `make chaos` runs it with 16 clients for ten minutes.
"""

import asyncio
from pathlib import Path

import pytest

from tests.proof.history.asking import TENANTS
from tests.proof.history.record import canary_of
from tests.proof.history.run import History
from tests.proof.server import KILLED, DigestProcess, digest_server, stop


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
    gaps = sorted(history.record.gaps)
    p95 = gaps[len(gaps) * 95 // 100] if gaps else 0.0
    print(f"killed {server.killed}; {history}; {len(gaps)} broken streams, p95 gap {p95:.2f} s")
    return history, faults


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
@pytest.mark.timeout(1800)
def test_the_guarantees_hold_for_ten_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with digest_server(tmp_path, monkeypatch) as server:
        history, faults = asyncio.run(_run(server, 16, 600, 8, 2))
        assert faults == []
        assert _logged_canaries(server) == []
        assert set(server.killed) >= set(KILLED)
        assert history.num_acked >= 500
