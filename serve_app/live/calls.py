"""The plugin calls of a live turn, as its record knows them: a CallLog in the store."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from serve_app.chat.resume import TimedOutput
from serve_app.errors import StoreUnavailableError
from serve_app.live.record import Hold
from serve_app.live.store import LiveStore


@dataclass(frozen=True)
class StoredCallLog:
    """What `hold` may know and say, until `deadline`.

    `flush` returns when the events so far are stored. A call with effects is sent after that, so
    that whoever takes the turn up makes the same call of the same thoughts.
    """

    store: LiveStore
    hold: Hold
    deadline: float
    flush: Callable[[], Awaitable[None]]

    async def find(self, call_id: str) -> TimedOutput | None:
        return await self.store.find(self.hold, call_id)

    async def claim(self, call_id: str) -> bool:
        try:
            async with asyncio.timeout(self.deadline - time.monotonic()):
                await self.flush()
        except TimeoutError as error:
            raise StoreUnavailableError("the store has not taken the events of a turn") from error
        return await self.store.claim(self.hold, call_id, self.deadline)

    async def record(self, call_id: str, output: TimedOutput) -> TimedOutput:
        return await self.store.record(self.hold, call_id, output, self.deadline)
