"""The store and a dictionary give the same results, in any order of steps."""

import asyncio
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from moss_tp.errors import DeadlineExceededError
from serve_app.errors import IdempotencyInProgressError, SessionBusyError, TurnNotStoredError
from serve_app.sessions.redis import RedisSessionStore, StoreSettings
from serve_app.sessions.session import Turn, new_token
from serve_app.sessions.store import Lease
from tests.serve_app.store_server import StoreServer

OWNERS, KEYS, TOKENS = st.sampled_from(["ann", "bob"]), st.sampled_from("abcd"), st.integers(0, 3)

LEASES = st.lists(st.tuples(st.integers(0, 1), KEYS, TOKENS), max_size=3)


class StoreMachine(RuleBasedStateMachine):
    """Two sessions, two owners, few keys and leases, so that they collide."""

    server: StoreServer

    @initialize()
    def connect(self) -> None:
        self.runner = asyncio.Runner()
        self.store = RedisSessionStore(self.server.url, StoreSettings(lease_s=600))
        self.uids = [new_token(), new_token()]
        self.tokens = [new_token() for _ in range(4)]
        self.owners: dict[str, str] = {}
        self.turns: dict[str, list[Turn]] = {uid: [] for uid in self.uids}
        self.held: dict[str, tuple[str, str]] = {}

    def lease(self, chat: int, owner: str, key: str, token: int) -> Lease:
        return Lease(self.uids[chat], owner, key, self.tokens[token])

    @rule(chat=st.integers(0, 1), owner=OWNERS, key=KEYS, token=TOKENS, may_create=st.booleans())
    def begin(self, chat: int, owner: str, key: str, token: int, may_create: bool) -> None:
        lease = self.lease(chat, owner, key, token)
        turns, held = self.turns[lease.uid], self.held.get(lease.uid)
        step = self.store.begin(lease, may_create=may_create)
        is_known = self.owners.get(lease.uid, owner if may_create else None) == owner
        if not is_known:
            assert self.runner.run(step) is None
        elif key not in {turn.key for turn in turns} and held not in (None, (lease.token, key)):
            assert held is not None
            error = IdempotencyInProgressError if held[1] == key else SessionBusyError
            with pytest.raises(error):
                self.runner.run(step)
        else:
            opened = self.runner.run(step)
            assert opened is not None and list(opened.session.turns) == turns
            assert opened.is_leased == (key not in {turn.key for turn in turns})
            if opened.is_leased:
                self.held[lease.uid] = (lease.token, key)

    @rule(
        chat=st.integers(0, 1),
        owner=OWNERS,
        key=KEYS,
        token=TOKENS,
        lag=st.sampled_from([0, 0, 0, 1, -1]),
    )
    def commit(self, chat: int, owner: str, key: str, token: int, lag: int) -> None:
        lease = self.lease(chat, owner, key, token)
        turns = self.turns[lease.uid]
        turn = Turn("u", "t", "c", "r", new_token(), key)
        step = self.store.commit(lease, len(turns) + lag, turn)
        stored = next((old for old in turns if old.key == key), None)
        is_owner = self.owners.get(lease.uid, owner) == owner
        if not is_owner or (stored is None and lag):
            with pytest.raises(TurnNotStoredError):
                self.runner.run(step)
            return
        if stored is None:
            turns.append(stored := turn)
            self.owners[lease.uid] = owner
        assert self.runner.run(step) == stored
        self.forget(lease)

    @rule(leases=LEASES)
    def renew(self, leases: list[tuple[int, str, int]]) -> None:
        batch = [self.lease(chat, "ann", key, token) for chat, key, token in leases]
        are_held = [self.held.get(lease.uid) == (lease.token, lease.key) for lease in batch]
        assert self.runner.run(self.store.renew(batch)) == are_held

    @rule(leases=LEASES)
    def release(self, leases: list[tuple[int, str, int]]) -> None:
        batch = [self.lease(chat, "ann", key, token) for chat, key, token in leases]
        self.runner.run(self.store.release(batch))
        for lease in batch:
            self.forget(lease)

    @rule(chat=st.integers(0, 1), owner=OWNERS)
    def load(self, chat: int, owner: str) -> None:
        uid = self.uids[chat]
        session = self.runner.run(self.store.load(uid, owner))
        expected = self.turns[uid] if self.owners.get(uid) == owner else []
        assert list(session.turns if session else ()) == expected

    @rule(chat=st.integers(0, 1), key=KEYS, token=TOKENS)
    def come_too_late(self, chat: int, key: str, token: int) -> None:
        """A step whose deadline has passed changes nothing."""
        lease, past = self.lease(chat, "ann", key, token), time.monotonic() - 1
        with pytest.raises(DeadlineExceededError):
            self.runner.run(self.store.begin(lease, past, may_create=True))
        with pytest.raises(TurnNotStoredError):
            turn = Turn("u", "t", "c", "r", new_token(), key)
            self.runner.run(self.store.commit(lease, len(self.turns[lease.uid]), turn, past))

    @rule(is_wanted=st.integers(0, 9))
    def crash(self, is_wanted: int) -> None:
        """A server that was killed comes back with every turn and every lease."""
        if is_wanted == 0:
            self.server.kill()
            self.server.start()

    def forget(self, lease: Lease) -> None:
        if self.held.get(lease.uid) == (lease.token, lease.key):
            del self.held[lease.uid]

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.store.close())
            self.runner.close()


def test_the_store_behaves_like_a_dictionary(server: StoreServer) -> None:
    StoreMachine.server = server
    limits = settings(max_examples=40, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(StoreMachine, settings=limits)
