"""Chats over three replicas of a real engine: with our router, and with one that knows no chats."""

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from serve_app.demo.bundled import BUNDLED_MODEL
from tests.proof.figures import check
from tests.proof.long.chats import Chats, computed_tokens
from tests.proof.serve import ROUTER
from tests.proof.server import DigestProcess, digest_server

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]
NUM_CHATS, NUM_TURNS = int(os.environ.get("PROOF_CHATS", "64")), 20
NUM_POSITIONS = 4096
REPLICAS = ("--replicas", "3")
MIN_LANDED, MAX_COMPUTED = 0.95, 0.4


def _long_model(directory: Path) -> Path:
    """The bundled model, whose context would be too short for chats of so many turns."""
    shutil.copytree(BUNDLED_MODEL, directory)
    config = json.loads((directory / "config.json").read_text("utf-8"))
    config["n_positions"] = NUM_POSITIONS
    (directory / "config.json").write_text(json.dumps(config), "utf-8")
    return directory


async def _computed(server: DigestProcess, chats: Chats) -> float:
    """Tokens that the turns of `chats` made the replicas compute."""
    before = await computed_tokens(server)
    await chats.run()
    return await computed_tokens(server) - before


async def _both(server: DigestProcess) -> list[tuple[float, float]]:
    """With uids and without: the share of turns that landed, and the tokens computed."""
    found = []
    for have_uids in (True, False):
        chats = Chats(server, NUM_CHATS, NUM_TURNS, have_uids)
        computed = await _computed(server, chats)
        print(f"uids {have_uids}: {chats.landed:.1%} landed, {computed:.0f} tokens computed")
        found.append((chats.landed, computed))
    return found


def _measured(directory: Path, patch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    directory.mkdir()
    model = _long_model(directory / "model")
    with digest_server(directory, patch, *REPLICAS, engine=model) as server:
        return asyncio.run(_both(server))


def test_turns_land_on_their_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = _measured(tmp_path / "ours", monkeypatch)
    monkeypatch.setenv(ROUTER, "serve")
    theirs = _measured(tmp_path / "serve", monkeypatch)
    shares = [own[1] / other[1] for own, other in zip(ours, theirs, strict=True)]
    text = "; ".join(
        f"{name} uids {own[0]:.1%} of turns land (Serve's router: {other[0]:.1%}), {share:.2f} of"
        " its prompt tokens computed"
        for name, own, other, share in zip(("with", "without"), ours, theirs, shares, strict=True)
    )
    is_good = all(own[0] >= MIN_LANDED for own in ours) and max(shares) <= MAX_COMPUTED
    check("routing", text, is_good)
