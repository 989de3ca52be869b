"""Store and catalogue give the same results as a dictionary, in any order of steps."""

import asyncio
import time
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from moss_tp.errors import DeadlineExceededError
from serve_app.errors import (
    IdempotencyInProgressError,
    LeaseLostError,
    SessionBusyError,
    StoreUnavailableError,
    TurnNotFoundError,
    TurnNotStoredError,
)
from serve_app.sessions.catalogue import SessionChanges
from serve_app.sessions.redis import RedisSessionStore, StoreSettings
from serve_app.sessions.redis_catalogue import RedisSessionCatalogue
from serve_app.sessions.session import Feedback, Session, Turn, new_token
from serve_app.sessions.store import Lease
from serve_app.sessions.tree import path_to
from tests.serve_app.sessions.strategies import (
    CHANGES,
    CHATS,
    FEEDBACK,
    KEYS,
    LEASES,
    OWNERS,
    TOKENS,
    changed,
)
from tests.serve_app.store_server import StoreServer


class StoreMachine(RuleBasedStateMachine):
    """Few sessions, two owners, few keys and leases, so that they collide.

    `known` holds the sessions that are there, by uid, with their index in time in `touched`.
    """

    server: StoreServer

    @initialize()
    def connect(self) -> None:
        self.runner = asyncio.Runner()
        times = StoreSettings(lease_s=600)
        self.store = RedisSessionStore(self.server.url, times)
        self.catalogue = RedisSessionCatalogue(self.server.url, times)
        self.uids = [new_token() for _ in range(2)]
        self.owners = {name: f"{name} {new_token()}" for name in ("ann", "bob")}
        self.tokens = [new_token() for _ in range(4)]
        self.known: dict[str, Session] = {}
        self.gone: set[str] = set()
        self.held: dict[str, tuple[str, str]] = {}
        self.touched: list[str] = []

    def uid(self, chat: int) -> str:
        return self.uids[chat % len(self.uids)]

    def lease(self, chat: int, owner: str, key: str, token: int) -> Lease:
        return Lease(self.uid(chat), self.owners[owner], key, self.tokens[token])

    def owned(self, uid: str, owner: str) -> Session | None:
        session = self.known.get(uid)
        return session if session and session.owner == owner else None

    def touch(self, uid: str) -> None:
        self.touched = [uid, *(other for other in self.touched if other != uid)]

    @rule(chat=CHATS, owner=OWNERS, key=KEYS, token=TOKENS, may_create=st.booleans())
    def begin(self, chat: int, owner: str, key: str, token: int, may_create: bool) -> None:
        lease = self.lease(chat, owner, key, token)
        session, held = self.known.get(lease.uid), self.held.get(lease.uid)
        is_refused = session.owner != lease.owner if session else not may_create
        keys = {turn.key for turn in session.tree} if session else set()
        step = self.store.begin(lease, may_create=may_create)
        if is_refused or lease.uid in self.gone:
            assert self.runner.run(step) is None
        elif key not in keys and held not in (None, (lease.token, key)):
            assert held is not None
            error = IdempotencyInProgressError if held[1] == key else SessionBusyError
            with pytest.raises(error):
                self.runner.run(step)
        else:
            opened = self.runner.run(step)
            assert opened is not None
            assert opened.is_leased == (key not in keys)
            found = [turn for turn in (session.tree if session else ()) if turn.key == key]
            alone = Session(lease.uid, lease.owner, tuple(found), tuple(found))
            assert opened.session == (session if session and not found else alone)
            if opened.is_leased:
                self.held[lease.uid] = (lease.token, key)

    @rule(
        chat=CHATS,
        owner=OWNERS,
        key=KEYS,
        token=TOKENS,
        lag=st.sampled_from([0, 0, 0, 0, 1, -1]),
        parent=st.integers(-1, 5),
        is_holder=st.booleans(),
    )
    def commit(
        self,
        chat: int,
        owner: str,
        key: str,
        token: int,
        lag: int,
        parent: int,
        is_holder: bool,
    ) -> None:
        lease = self.lease(chat, owner, key, token)
        if is_holder and (held := self.held.get(lease.uid)):
            key = held[1]
            lease = replace(lease, token=held[0], key=key)
        session = self.known.get(lease.uid, Session(lease.uid, lease.owner))
        parents = ["", *(turn.id for turn in session.tree)]
        parent_id = session.turns[-1].id if parent < 0 and session.turns else ""
        if parent >= 0:
            parent_id = parents[parent % len(parents)]
        turn = Turn("u", "t", "c", "r", new_token(), key, id=new_token(), parent=parent_id)
        step = self.store.commit(lease, len(session.tree) + lag, turn)
        stored = next((old for old in session.tree if old.key == key), None)
        is_fenced = self.held.get(lease.uid, (lease.token, key)) != (lease.token, key)
        if session.owner != lease.owner or lease.uid in self.gone or (stored is None and lag):
            with pytest.raises(TurnNotStoredError):
                self.runner.run(step)
        elif stored is None and is_fenced:
            with pytest.raises(LeaseLostError):
                self.runner.run(step)
        else:
            result = self.runner.run(step)
            if stored is None:
                assert replace(result, created_ms=0) == turn
                self.append(session, result)
            else:
                assert result == stored
            self.touch(lease.uid)
            self.forget(lease)

    def append(self, session: Session, turn: Turn) -> None:
        tree = (*session.tree, turn)
        self.known[session.uid] = replace(
            session,
            tree=tree,
            turns=path_to(tree, turn.id),
            created_ms=session.created_ms or turn.created_ms,
        )

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

    @rule(chat=CHATS, owner=OWNERS)
    def load(self, chat: int, owner: str) -> None:
        uid, name = self.uid(chat), self.owners[owner]
        assert self.runner.run(self.store.load(uid, name)) == self.owned(uid, name)
        assert self.runner.run(self.catalogue.load(uid, name)) == self.owned(uid, name)

    @precondition(lambda self: len(self.uids) < 4)
    @rule(owner=OWNERS, changes=CHANGES)
    def create(self, owner: str, changes: SessionChanges) -> None:
        session = self.runner.run(self.catalogue.create(self.owners[owner], changes))
        expected = changed(Session(session.uid, self.owners[owner]), changes)
        assert replace(session, created_ms=0) == expected
        self.known[session.uid] = session
        self.uids.append(session.uid)
        self.touch(session.uid)

    @rule(chat=CHATS, owner=OWNERS, changes=CHANGES, any_plugins=st.booleans(), active=CHATS)
    def patch(
        self, chat: int, owner: str, changes: SessionChanges, any_plugins: bool, active: int
    ) -> None:
        uid, name = self.uid(chat), self.owners[owner]
        session = self.owned(uid, name)
        tree = session.tree if session else ()
        active_id = tree[active].id if active < len(tree) else None
        if any_plugins:
            changes = replace(changes, any_plugins=True, plugins=None)
        changes = replace(changes, active=active_id)
        patched = self.runner.run(self.catalogue.patch(uid, name, changes))
        if session is not None:
            session = self.known[uid] = changed(session, changes)
        assert patched == session

    @rule(chat=CHATS, owner=OWNERS)
    def name_a_turn_that_is_not_there(self, chat: int, owner: str) -> None:
        uid, name = self.uid(chat), self.owners[owner]
        changes = SessionChanges(title="no", active=new_token())
        for step in (
            partial(self.catalogue.patch, uid, name, changes),
            partial(self.catalogue.set_feedback, uid, name, new_token(), Feedback(True)),
        ):
            if self.owned(uid, name) is None:
                assert self.runner.run(step()) is None
            else:
                with pytest.raises(TurnNotFoundError):
                    self.runner.run(step())

    @rule(chat=CHATS, owner=OWNERS, turn=CHATS, feedback=FEEDBACK)
    def give_feedback(self, chat: int, owner: str, turn: int, feedback: Feedback) -> None:
        uid, name = self.uid(chat), self.owners[owner]
        session = self.owned(uid, name)
        if session is None or turn >= len(session.tree):
            return
        turn_id = session.tree[turn].id
        others = {key: value for key, value in session.feedback.items() if key != turn_id}
        given = {} if feedback == Feedback() else {turn_id: feedback}
        expected = self.known[uid] = replace(session, feedback=others | given)
        step = self.catalogue.set_feedback(uid, name, turn_id, feedback)
        assert self.runner.run(step) == expected

    @rule(chat=CHATS, owner=OWNERS, is_wanted=st.integers(0, 2))
    def delete(self, chat: int, owner: str, is_wanted: int) -> None:
        if is_wanted:
            return
        uid, name = self.uid(chat), self.owners[owner]
        was_there = self.owned(uid, name) is not None
        assert self.runner.run(self.catalogue.delete(uid, name)) == was_there
        if was_there:
            del self.known[uid]
            self.gone.add(uid)
            self.held.pop(uid, None)

    @rule(owner=OWNERS, limit=st.integers(1, 3))
    def list_all(self, owner: str, limit: int) -> None:
        """Page after page; two turns within a millisecond may come in either order."""
        name, after, listed = self.owners[owner], "", list[str]()
        while found := self.runner.run(self.catalogue.list_sessions(name, limit, after)):
            assert len(found) <= limit
            listed += [summary.uid for summary in found]
            after = listed[-1]
            for line in found:
                session = self.known[line.uid]
                numbers = (len(session.tree), session.title, session.created_ms)
                assert (line.num_turns, line.title, line.created_ms) == numbers
        expected = [uid for uid in self.touched if self.owned(uid, name)]
        assert sorted(listed) == sorted(expected)

    @rule(chat=CHATS, key=KEYS, token=TOKENS)
    def come_too_late(self, chat: int, key: str, token: int) -> None:
        """A step whose deadline has passed changes nothing. A slow machine's store seems away."""
        lease, past = self.lease(chat, "ann", key, token), time.monotonic() - 1
        late = (DeadlineExceededError, StoreUnavailableError)
        with pytest.raises(late):
            self.runner.run(self.store.begin(lease, past, may_create=True))
        with pytest.raises(late):
            self.runner.run(self.catalogue.delete(lease.uid, lease.owner, past))
        with pytest.raises((TurnNotStoredError, StoreUnavailableError)):
            turn = Turn("u", "t", "c", "r", new_token(), key, id=new_token())
            self.runner.run(self.store.commit(lease, 0, turn, past))

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
            self.runner.run(self.catalogue.close())
            self.runner.close()


def test_the_store_behaves_like_a_dictionary(server: StoreServer) -> None:
    StoreMachine.server = server
    limits = settings(max_examples=25, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(StoreMachine, settings=limits)
