"""Puts a process's samples on the board once a second, and notices processes that are gone.

A process is gone when its beat has not moved while this one was heard several times: so a store
that was away makes nobody look gone.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from secrets import token_hex
from typing import Literal

from prometheus_client.core import Metric

from moss_tp.errors import MossError
from serve_app.observe.board import Beats, Board
from serve_app.observe.snapshot import families_of, pack

logger = logging.getLogger(__name__)

PERIOD_S = 1.0
SETTLE_ROUNDS = 10  # Serve replaces a replica that is silent for so long
FOLD_ROUNDS = 3600
END_S = 1.0


class Publisher:
    """`collect` returns the samples of this process."""

    def __init__(
        self,
        url: str,
        kind: Literal["ingress", "group"],
        collect: Callable[[], Iterable[Metric]],
        period_s: float = PERIOD_S,
    ) -> None:
        self._url = url
        self.name = f"{kind}:{token_hex(8)}"
        self._collect = collect
        self._period_s = period_s
        self._sent = b""
        self._silent: dict[str, tuple[str, int]] = {}  # beats, and for how many rounds
        self._board = Board(url)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Needs a running event loop; does nothing if it runs already."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Publishes once more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            with suppress(MossError, TimeoutError):
                async with asyncio.timeout(END_S):
                    await self.publish()
                    await self._board.settle(self.name)
        await self._board.close()

    def end(self) -> None:
        """`stop` for a process whose event loop cannot wait; takes a second at most."""
        ending = threading.Thread(target=lambda: asyncio.run(self._end()), daemon=True)
        ending.start()
        ending.join(END_S)

    async def publish(self) -> Beats:
        """Raises StoreUnavailableError and DeadlineExceededError."""
        snapshot = pack(families_of(self._collect()))
        beats = await self._board.publish(self.name, None if snapshot == self._sent else snapshot)
        self._sent = snapshot
        return beats

    async def _run(self) -> None:
        while True:
            try:
                await self._watch(await self.publish())
            except MossError as error:
                logger.warning("metrics are not published: %s", error)
                self._sent = b""
            await asyncio.sleep(self._period_s)

    async def _watch(self, beats: Beats) -> None:
        """Notes which of the others are gone."""
        before, self._silent = self._silent, {}
        for name, beat in beats.items():
            last, rounds = before.get(name, ("", 0))
            rounds = rounds + 1 if beat == last else 0
            self._silent[name] = beat, rounds
            if rounds == SETTLE_ROUNDS:
                await self._board.settle(name, beat, counts=name.startswith("group:"))
            elif rounds and rounds % FOLD_ROUNDS == 0:
                await self._board.fold(name)

    async def _end(self) -> None:
        board = Board(self._url)
        snapshot = pack(families_of(self._collect()))
        with suppress(MossError):
            await board.publish(self.name, snapshot)
            await board.settle(self.name)
        await board.close()
