"""A real server with the digest model, or with a real one, in processes of its own, and who kills
them."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from serve_app.access.api_key import make_key
from serve_app.access.key_book import KeyBook
from serve_app.cli.stored.location import located_store
from serve_app.demo.bundled import BUNDLED_MODEL
from tests.e2e.components import processes_of
from tests.e2e.moss_process import MossProcess
from tests.proof import digest
from tests.proof.history.asking import TENANTS
from tests.proof.history.run import Site
from tests.proof.rolling.redeploy import UPDATES
from tests.proof.serve import CALLS, MODEL, NUM_WORDS, PATIENCE_S, PAUSE_S

ADMIN = "admin"
KILLED = ("ingress", "replica", "plugin", "store", "proxy", "controller")


class DigestProcess(MossProcess):
    """Requires keys: `api_keys` has one for each tenant and for an admin, once it runs."""

    def __init__(self, directory: Path, *flags: str, model: Path = BUNDLED_MODEL) -> None:
        super().__init__(directory, "--tp", "1", "--auth", "required", *flags, model=model)
        self._command[2] = "tests.proof.serve"
        self.directory = directory
        self.effects = directory / "calls.txt"
        self.updates = directory / "updates.txt"
        self.api_keys: dict[str, str] = {}

    async def make_keys(self) -> None:
        with located_store("embedded", self.directory / "data") as url:
            book = KeyBook(url)
            for name in (*TENANTS, ADMIN):
                key, self.api_keys[name] = make_key(f"owner-{name}", is_admin=name == ADMIN)
                await book.add(key)
            await book.close()
            self.store = url

    @property
    def site(self) -> Site:
        return Site(lambda: self.url, self.api_keys, self.store, self.effects)

    def stats(self) -> dict[str, Any]:
        """The counters of the model's replica."""
        headers = {"Authorization": f"Bearer {self.api_keys[ADMIN]}"}
        stats: dict[str, Any] = httpx.get(f"{self.url}/stats", headers=headers, timeout=30).json()
        return stats

    def kill(self, component: str, choice: random.Random) -> str:
        """Sends SIGKILL to one of its processes; returns what was killed, or ""."""
        try:
            choice.choice(processes_of(self, component)).kill()
        except (IndexError, psutil.NoSuchProcess):
            return ""
        return component

    async def kill_often(self, every_s: float, components: Sequence[str], seed: int) -> None:
        """Each component in turn. `killed` says which."""
        self.killed: list[str] = []
        choice = random.Random(seed)
        while True:
            for component in components:
                await asyncio.sleep(every_s)
                self.killed.append(await asyncio.to_thread(self.kill, component, choice))


@contextmanager
def digest_server(
    directory: Path,
    patch: pytest.MonkeyPatch,
    *flags: str,
    pause_s: float = 0.02,
    num_words: int = digest.NUM_WORDS,
    patience_s: int | None = None,
    engine: Path | None = None,
) -> Iterator[DigestProcess]:
    """Runs for the block. The digest takes `pause_s` a token and replies in `num_words`.

    Serve replaces what answers nothing for `patience_s`; None: as soon as it does elsewhere. With a
    checkpoint for an `engine`, that is the model, and its plugins are slow.
    """
    process = DigestProcess(directory, *flags, model=engine or BUNDLED_MODEL)
    patch.setenv(MODEL, "digest" if engine is None else "engine")
    if patience_s is not None:
        patch.setenv(PATIENCE_S, str(patience_s))
    patch.setenv(CALLS, str(process.effects))
    patch.setenv(UPDATES, str(process.updates))
    patch.setenv(PAUSE_S, str(pause_s))
    patch.setenv(NUM_WORDS, str(num_words))
    patch.setenv("PYTHONPATH", str(Path.cwd()))
    with process:
        asyncio.run(process.make_keys())
        yield process


async def stop(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
