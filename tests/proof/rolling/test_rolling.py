"""Rolling updates under load: no request fails, no reply is cut.

`make chaos` runs 50 of them, or as PROOF_UPDATE_COUNT says.
"""

import asyncio
import os
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.proof.figures import check
from tests.proof.rolling.clients import OK, roll
from tests.proof.server import DigestProcess, digest_server

NUM_UPDATES = int(os.environ.get("PROOF_UPDATE_COUNT", "50"))
NUM_CLIENTS = 12
# A reply takes about two seconds: so each update finds some of each kind.
PAUSE_S, NUM_WORDS = 0.03, 60
# As on a cluster: a reply may have to wait for the new replica, which takes its time to start.
DRAIN_S = 120.0


def _server(directory: Path, patch: pytest.MonkeyPatch) -> AbstractContextManager[DigestProcess]:
    flags = "--drain", f"{DRAIN_S:g}"
    return digest_server(directory, patch, *flags, pause_s=PAUSE_S, num_words=NUM_WORDS)


@pytest.mark.timeout(400)
def test_two_updates_fail_no_request_and_cut_no_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _server(tmp_path, monkeypatch) as server:
        clients, text = asyncio.run(roll(server, 2, 12))
    print(text)
    assert set(clients.outcomes) == {OK}, text
    assert clients.outcomes[OK] >= 30, text


@pytest.mark.chaos
@pytest.mark.timeout(120 + 120 * NUM_UPDATES)
def test_fifty_updates_fail_no_request_and_cut_no_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _server(tmp_path, monkeypatch) as server:
        clients, text = asyncio.run(roll(server, NUM_UPDATES, NUM_CLIENTS))
    check("updates", text, set(clients.outcomes) == {OK})
