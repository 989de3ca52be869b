"""Turns whose end the store takes late, or takes without saying so: they end once."""

from math import inf
from typing import Any

import pytest

from moss_tp.errors import DeadlineExceededError
from serve_app.live.event import Telling
from serve_app.live.record import Hold
from serve_app.live.redis import LiveSettings, RedisLiveStore
from serve_app.live.store import Ask
from serve_app.sessions.session import Turn
from tests.serve_app.live.ingresses import OWNER, SETTINGS, Ingresses


class LateStore(RedisLiveStore):
    """Has no time for the first end, or says so after it has taken that."""

    def __init__(self, url: str, settings: LiveSettings, *, is_taken: bool) -> None:
        super().__init__(url, settings)
        self._is_taken = is_taken
        self._is_first = True

    async def end(self, hold: Hold, number: int, last: Telling, deadline: float = inf) -> None:
        is_late, self._is_first = self._is_first, False
        if self._is_taken or not is_late:
            await super().end(hold, number, last, deadline)
        if is_late:
            raise DeadlineExceededError("the store has too much to do")


@pytest.mark.parametrize("is_taken", [False, True])
async def test_a_stored_turn_ends_as_done(ingresses: Ingresses, is_taken: bool) -> None:
    store = LateStore(ingresses.url, SETTINGS, is_taken=is_taken)
    ingress, uid = ingresses.add(store=store), await ingresses.session()
    started = await ingress.start(uid)
    events = await ingress.read(started)
    assert [e.kind for e in events if e.telling.is_terminal] == ["done"]
    assert await store.read(Ask(uid, OWNER, started.id)) == tuple(events)
    assert [turn.id for turn in (await ingresses.load(uid)).tree] == [started.id]


async def test_a_commit_that_may_have_been_made_is_no_failure(
    ingresses: Ingresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingress, uid = ingresses.add(), await ingresses.session()
    commit = ingress.sessions.commit

    async def commit_late(*args: Any) -> Turn:
        await commit(*args)
        raise DeadlineExceededError("the store has too much to do")

    monkeypatch.setattr(ingress.sessions, "commit", commit_late)
    started = await ingress.start(uid)
    assert (await ingress.read(started))[-1].kind == "done"
    assert [turn.id for turn in (await ingresses.load(uid)).tree] == [started.id]
