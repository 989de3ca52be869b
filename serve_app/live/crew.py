"""The tellers of one ingress: each runs in a task of its own, beside whoever started its turn."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from typing import Protocol

from serve_app.access.gate import Admission
from serve_app.chat.draft import Draft
from serve_app.chat.events import Usage
from serve_app.chat.request import Meter, ReplyRequest
from serve_app.errors import StoreUnavailableError
from serve_app.live.calls import StoredCallLog
from serve_app.live.follower import Follower
from serve_app.live.record import Hold, calls_of, num_generated, resume_of
from serve_app.live.store import Ask, Cancel, TakenUp
from serve_app.live.tail import Tail
from serve_app.live.teller import Means, Teller
from serve_app.live.writer import EventWriter
from serve_app.prompt.fit import Prompt
from serve_app.sessions.session import Session
from serve_app.sessions.tree import path_to


class Stop(Protocol):
    """How the process stops: it lets running turns end for a while."""

    is_refusing: bool  # it takes no more turns: the whole server stops

    def turn(self) -> AbstractContextManager[None]:
        """Counts a turn for the block. Raises DrainingError."""
        ...

    def on_begin(self, call: Callable[[], None]) -> None:
        """`call` is called when draining begins."""
        ...

    async def wait_over(self) -> None:
        """Returns when the turns must end."""
        ...


class Crew:
    """Opens a pen for each teller, and its readers share what that writes."""

    def __init__(
        self, means: Means, writer: EventWriter, follower: Follower, stop: Stop | None = None
    ) -> None:
        self._means = means
        self._writer = writer
        self._follower = follower
        self._stop = stop
        self._tellers: dict[asyncio.Task[None], Teller] = {}

    async def close(self) -> None:
        """Leaves all turns as they are."""
        for task in self._tellers:
            task.cancel()
        await asyncio.gather(*self._tellers, return_exceptions=True)

    async def hand_over(self) -> None:
        """Gives all turns to other ingresses, at once."""
        await asyncio.gather(*(teller.hand_over() for teller in self._tellers.values()))

    def cancel(self, turn_id: str, cancel: Cancel) -> None:
        """Does nothing for a turn that is not told here."""
        for teller in self._tellers.values():
            if teller.turn_id == turn_id:
                teller.cancel(cancel)

    def tell(
        self,
        hold: Hold,
        tail: Tail,
        session: Session,
        deadline: float,
        stack: AsyncExitStack,
        charge: Admission | None,
        taken: TakenUp | None = None,
    ) -> Teller:
        """Runs a teller of the turn in a task of its own; it takes what is in
        `stack`, which is left at its end."""
        log = StoredCallLog(self._means.store, hold, deadline, lambda: teller.pen.flush())
        draft = self._draft(hold, tail, session, log)
        pen = self._writer.open(hold, tail, lambda standing: teller.note(standing))
        teller = Teller(self._means, draft, pen, *_history(taken))
        if taken is not None and taken.cancel:
            teller.cancel(taken.cancel)
        self._follower.track(tail)
        stack.enter_context(self._counted())  # now: the process may stop before the task begins
        task = asyncio.create_task(self._run(teller, stack.pop_all(), charge))
        self._tellers[task] = teller
        task.add_done_callback(self._tellers.pop)
        return teller

    async def _run(self, teller: Teller, stack: AsyncExitStack, charge: Admission | None) -> None:
        try:
            async with stack:
                await (teller.run() if charge is None else self._charged(teller, charge))
        finally:
            self._writer.close(teller.pen)
            self._follower.forget(teller.pen.tail)

    async def _charged(self, teller: Teller, charge: Admission) -> None:
        """Runs `teller`; what the turn has used is settled by whoever ends it."""
        charge.is_left = True  # should this process go
        await teller.run()
        if (num_tokens := await self._num_used(teller)) is not None:
            charge.num_tokens, charge.is_left = num_tokens, False

    async def _num_used(self, teller: Teller) -> int | None:
        """Tokens of a turn that nobody goes on with, for it has ended, here or elsewhere, or is
        deleted. Whoever counts them finds as many."""
        if teller.has_ended:
            return teller.num_tokens
        turn = teller.pen.hold.turn
        try:
            events = await self._means.store.read(Ask(turn.uid, turn.owner, turn.id))
        except StoreUnavailableError:
            return None
        if events and not events[-1].telling.is_terminal:
            return None
        usage = events[-1].data.get("usage") if events else None
        return teller.num_tokens if usage is None else Usage(**usage).num_tokens

    def _draft(self, hold: Hold, tail: Tail, session: Session, log: StoredCallLog) -> Draft:
        """What is left to do of a turn that was told as far as `tail` has it."""
        turn = hold.turn
        request = ReplyRequest(
            request_id=turn.id,
            history=(),
            user=turn.user,
            params=turn.params,
            enabled=frozenset(turn.enabled),
            max_length=turn.max_length,
            deadline=log.deadline,
            owner=turn.owner,
            session_id=turn.uid,
            priority=turn.priority,
            max_completion_tokens=turn.max_completion_tokens,
            prompt=Prompt([*turn.prompt_ids], turn.dropped_turns, turn.num_shared_tokens),
            resume=resume_of(tail.events, hold.token[:8]),
            call_log=log,
            meter=Meter(num_generated(tail.events)),
        )
        history = path_to(session.tree, turn.parent)
        calls = calls_of(tail.events)
        began_s = turn.started_ms / 1000 or time.time()
        return Draft(request, turn.key, turn.fingerprint, session, history, calls, began_s=began_s)

    def _counted(self) -> AbstractContextManager[None]:
        """A turn that is taken up while the server stops does not hold it."""
        if self._stop is None or self._stop.is_refusing:
            return nullcontext()
        return self._stop.turn()


def _history(taken: TakenUp | None) -> tuple[int, bool]:
    """How many tellers a turn had before, and whether its session has gone on without it."""
    return (0, False) if taken is None else (taken.attempt, taken.is_stale)
