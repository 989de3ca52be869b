"""Looks once a second, for all turns of an ingress at once: renews those that it tells, says that
it is there, and finds those that nobody tells.

It does not know how a turn is taken up.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection

from moss_tp.errors import MossError
from serve_app.live.store import LiveStore
from serve_app.live.writer import Pen
from serve_app.sessions.session import new_token

logger = logging.getLogger(__name__)

PERIOD_S = 1.0
TakeUp = Callable[[str, str], Awaitable[None]]


class Patrol:
    """`pens` are those of the turns that are told here. `take_up(uid, turn_id)` is called in a task
    of its own, and may find that somebody else was faster. `made` says what makes replies here, as
    a digest.
    """

    def __init__(
        self,
        store: LiveStore,
        pens: Collection[Pen],
        take_up: TakeUp,
        made: Callable[[], Awaitable[str]],
        period_s: float = PERIOD_S,
    ) -> None:
        self._store = store
        self._pens = pens
        self._take_up = take_up
        self._made = made
        self._period_s = period_s
        self._token = new_token()
        self._task: asyncio.Task[None] | None = None
        self._is_leaving = self._has_left = False
        self._taking: dict[tuple[str, str], asyncio.Task[None]] = {}
        self.num_others: int | None = None  # others of its make-up that stay, if known

    def start(self) -> None:
        """Needs a running event loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        tasks = [*self._taking.values(), *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def leave(self) -> int:
        """Says that this ingress goes, and returns how many others stay that can go on with turns.

        Where all go at once, they have said so within a period. Without a store nobody stays.
        """
        self._is_leaving = True
        await self._look()
        await asyncio.sleep(self._period_s)
        await self._look()
        return self.num_others or 0

    async def leave_turns(self) -> None:
        """From now on this ingress takes no turn up. Returns when those that it did have tellers,
        or after a period, if that takes too long."""
        self._has_left = True
        if self._taking:
            await asyncio.wait(self._taking.values(), timeout=self._period_s)

    async def _run(self) -> None:
        while True:
            began = time.monotonic()
            await self._look()
            await asyncio.sleep(max(0.0, began + self._period_s - time.monotonic()))

    async def _look(self) -> None:
        holds = [pen.hold for pen in self._pens if not pen.is_lost]
        try:
            name = f"{await self._made()}:{self._token}"
            found = await self._store.patrol(name, holds, self._is_leaving)
        except Exception as error:
            bug = None if isinstance(error, MossError) else error
            logger.warning("%s turns could not be renewed: %s", len(holds), error, exc_info=bug)
            self.num_others = None
            return
        self.num_others = found.num_others
        if self._has_left or (self._is_leaving and found.num_others):
            return
        for orphan in found.orphans:
            if orphan not in self._taking:
                self._taking[orphan] = asyncio.create_task(self._try(*orphan))

    async def _try(self, uid: str, turn_id: str) -> None:
        try:
            await self._take_up(uid, turn_id)
        except Exception as error:
            bug = None if isinstance(error, MossError) else error
            logger.warning("a turn could not be taken up: %s", error, exc_info=bug)
        finally:
            del self._taking[uid, turn_id]
