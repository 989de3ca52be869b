"""The limits' scripts do what a model in plain Python does, by a clock of our own, in any order."""

import asyncio
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil
from typing import Any

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

from serve_app.access import limit_scripts as scripts
from serve_app.access.principal import Limits
from serve_app.access.steps import make_lane, run_script
from tests.serve_app.store_server import StoreServer

LEASE_MS = 15_000
RATES = st.sampled_from([None, 0.5, 1.0, 3.0])
TOKENS = st.sampled_from([None, 60, 600])
RUNNING = st.sampled_from([None, 1, 2])


@dataclass
class Bucket:
    """What flows into it a millisecond, up to its size; what is taken may leave less than none."""

    size: float
    per_ms: float
    value: float
    at_ms: int = 0

    def level(self, now_ms: int) -> float:
        return min(self.size, self.value + (now_ms - self.at_ms) * self.per_ms)

    def take(self, num: float, now_ms: int) -> None:
        self.value, self.at_ms = min(self.size, self.level(now_ms) - num), now_ms


@dataclass
class ModelOfLimits:
    """The limits of one key. `turns` has the end of each turn's lease."""

    limits: Limits
    turns: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rate, per_min = self.limits.requests_per_s, self.limits.tokens_per_min
        self.requests = None if rate is None else _full(max(1, rate), rate / 1000)
        self.tokens = None if per_min is None else _full(per_min, per_min / 60_000)

    def admit(self, turn: str, num_tokens: int, now_ms: int) -> list[Any] | None:
        forgotten = now_ms - scripts.REMEMBER_MS
        self.turns = {each: end for each, end in self.turns.items() if end > forgotten}
        running = self.limits.running_turns
        if running is not None and sum(end > now_ms for end in self.turns.values()) >= running:
            return [b"running_turns", 1000]
        requests, tokens = self.requests, self.tokens
        if requests is not None and (level := requests.level(now_ms)) < 1:
            return [b"requests_per_s", ceil((1 - level) / requests.per_ms)]
        if tokens is not None:
            missing = max(1, min(num_tokens, tokens.size)) - tokens.level(now_ms)
            if missing > 0:
                return [b"tokens_per_min", ceil(missing / tokens.per_ms)]
            tokens.take(num_tokens, now_ms)
        if requests is not None:
            requests.take(1, now_ms)
        self.turns[turn] = now_ms + LEASE_MS
        return None

    def settle(self, turn: str, more: int, now_ms: int) -> None:
        if self.turns.pop(turn, None) is not None and self.tokens is not None and more:
            self.tokens.take(more, now_ms)


def _full(size: float, per_ms: float) -> Bucket:
    return Bucket(size, per_ms, size)


class LimitsMachine(RuleBasedStateMachine):
    """One key; turns come, end, are renewed or are left behind while time passes."""

    server: StoreServer

    @initialize(rate=RATES, tokens=TOKENS, running=RUNNING)
    def connect(self, rate: float | None, tokens: int | None, running: int | None) -> None:
        self.runner = asyncio.Runner()
        self.lane = make_lane(self.server.url)
        self.keys = scripts.keys_of(secrets.token_hex(6))
        self.limits = Limits(rate, tokens, running)
        self.model = ModelOfLimits(self.limits)
        self.now_ms = 1_764_000_000_000
        self.num_turns = 0

    def new_turn(self) -> str:
        self.num_turns += 1
        return f"{self.num_turns:06}"

    def send(self, script: Any, keys: tuple[str, ...], *args: Any) -> Any:
        return self.runner.run(run_script(self.lane, script, keys, self.now_ms, *args))

    def send_admit(self, turn: str, num_tokens: int) -> Any:
        limits = (
            self.limits.requests_per_s,
            self.limits.tokens_per_min,
            self.limits.running_turns,
        )
        args = (turn, LEASE_MS, *("" if each is None else repr(each) for each in limits))
        return self.send(scripts.ADMIT, self.keys, *args, num_tokens)

    @rule(num_tokens=st.sampled_from([0, 1, 30, 100, 700]))
    def admit(self, num_tokens: int) -> None:
        turn = self.new_turn()
        expected = self.model.admit(turn, num_tokens, self.now_ms)
        found = self.send_admit(turn, num_tokens)
        self.check(found, expected)
        if found is None:  # sent again, as after a lost answer, it takes nothing more
            assert self.send_admit(turn, num_tokens) is None

    def check(self, found: list[Any] | None, expected: list[Any] | None) -> None:
        if found is None or expected is None:
            assert found == expected
        else:
            assert found[0] == expected[0]
            assert abs(found[1] - expected[1]) <= 1, "the last bit of a sum may round differently"

    @precondition(lambda self: self.model.turns)
    @rule(data=st.data(), more=st.sampled_from([-30, 0, 20, 500]))
    def settle(self, data: st.DataObject, more: int) -> None:
        turn = data.draw(st.sampled_from(sorted(self.model.turns)))
        per_min = self.limits.tokens_per_min
        for _ in range(2):  # the second time changes nothing
            self.send(scripts.SETTLE, self.keys, turn, "" if per_min is None else per_min, more)
        self.model.settle(turn, more, self.now_ms)

    @precondition(lambda self: self.model.turns)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        turn = data.draw(st.sampled_from(sorted(self.model.turns)))
        self.send(scripts.RENEW, self.keys[1:], turn, LEASE_MS)
        self.model.turns[turn] = self.now_ms + LEASE_MS

    @rule()
    def renew_a_turn_that_has_ended(self) -> None:
        self.send(scripts.RENEW, self.keys[1:], "ended", LEASE_MS)

    @rule(ms=st.sampled_from([1, 300, 1000, 4000, 15_000, 60_000]))
    def wait(self, ms: int) -> None:
        self.now_ms += ms

    @rule()
    def wait_as_told(self) -> None:
        """Whoever comes back when told is let in, if nobody else comes meanwhile."""
        turn = self.new_turn()
        for _ in range(5):
            found = self.send_admit(turn, 1)
            expected = self.model.admit(turn, 1, self.now_ms)
            self.check(found, expected)
            if found is None:
                return
            if found[0] == b"running_turns":
                self.now_ms += LEASE_MS
            self.now_ms += found[1]
        raise AssertionError("it was told to wait, again and again")

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.lane.close())
            self.runner.close()


@pytest.fixture
def limits_server(server: StoreServer) -> Iterator[StoreServer]:
    LimitsMachine.server = server
    yield server


def test_the_scripts_do_what_the_model_does(limits_server: StoreServer) -> None:
    limits = settings(max_examples=30, stateful_step_count=30, deadline=None)
    run_state_machine_as_test(LimitsMachine, settings=limits)
