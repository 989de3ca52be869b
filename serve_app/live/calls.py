"""The plugin calls of a live turn, as its record knows them: a CallLog in the store."""

from dataclasses import dataclass

from serve_app.chat.resume import TimedOutput
from serve_app.live.record import Hold
from serve_app.live.store import LiveStore


@dataclass(frozen=True)
class StoredCallLog:
    """What `hold` may know and say, until `deadline`."""

    store: LiveStore
    hold: Hold
    deadline: float

    async def find(self, call_id: str) -> TimedOutput | None:
        return await self.store.find(self.hold, call_id)

    async def claim(self, call_id: str) -> bool:
        return await self.store.claim(self.hold, call_id, self.deadline)

    async def record(self, call_id: str, output: TimedOutput) -> TimedOutput:
        return await self.store.record(self.hold, call_id, output, self.deadline)
