"""What takes requests, or runs what does, is killed under streamed turns while new ones come."""

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from tests.e2e.components import processes_of
from tests.proof.figures import check
from tests.proof.history.asking import Asker
from tests.proof.history.record import Act
from tests.proof.history.run import NO_LIMIT, History
from tests.proof.long.streams import asker_of
from tests.proof.server import DigestProcess, digest_server
from tests.proof.test_forms import shown, stream_turns

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
PARTS = ("ingress", "controller", "proxy")
NUM_TURNS, NUM_NEW = 20, 20
PAUSE_S, NUM_WORDS = 0.05, 40
KILL_AFTER_S, EVERY_S, RETRY_S = 2.0, 0.1, 5.0


async def _new_request(asker: Asker, number: int) -> bool:
    """Whether it is answered; a refused or broken connection is tried again for RETRY_S."""
    until = time.monotonic() + RETRY_S
    body = {
        "messages": [{"role": "user", "content": f"canary {number}"}],
        "max_completion_tokens": 8,
    }
    headers = {"Authorization": f"Bearer {asker.api_key}"}
    while time.monotonic() < until:
        try:
            response = await asker.http.post(
                f"{asker.url()}/v1/chat/completions", json=body, headers=headers, timeout=60
            )
        except httpx.TransportError:
            await asyncio.sleep(EVERY_S)
            continue
        return response.status_code == 200
    return False


async def _killed(server: DigestProcess, asker: Asker, part: str) -> tuple[int, list[Act]]:
    """How many new requests were answered, and the turns that ran meanwhile."""
    streaming = asyncio.create_task(stream_turns(asker, NUM_TURNS, f"{part}-key"))
    await asyncio.sleep(KILL_AFTER_S)
    processes_of(server, part)[0].kill()
    asking = []
    for number in range(NUM_NEW):
        asking.append(asyncio.create_task(_new_request(asker, number)))
        await asyncio.sleep(EVERY_S)
    return sum(await asyncio.gather(*asking)), await streaming


async def _each_part(server: DigestProcess) -> None:
    num_answered = num_same = 0
    async with httpx.AsyncClient(limits=NO_LIMIT, trust_env=False) as http:
        asker = asker_of(server, http)
        for part in PARTS:
            num, acts = await _killed(server, asker, part)
            num_answered += num
            await asyncio.sleep(3 * RETRY_S)
            alone = await stream_turns(asker, NUM_TURNS, f"{part}-key")
            num_same += sum(shown(a) == shown(b) for a, b in zip(acts, alone, strict=True))
    faults = History(server.site, 0, record=asker.record).faults_so_far()
    num_new, num_turns = len(PARTS) * NUM_NEW, len(PARTS) * NUM_TURNS
    text = f"{num_answered} of {num_new} new requests answered, {num_same} of {num_turns} turns"
    holds = (num_answered, num_same, faults) == (num_new, num_turns, [])
    check("front", f"{text} identical, {len(faults)} faults", holds)


def test_ingress_controller_and_proxy_die(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with digest_server(tmp_path, monkeypatch, pause_s=PAUSE_S, num_words=NUM_WORDS) as server:
        asyncio.run(_each_part(server))
