"""The breaker on a fake clock: when it opens, whom it lets through, when it closes."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serve_app.chat.calling.circuit_breaker import (
    FAILURES,
    FIRST_PAUSE_S,
    MAX_PAUSE_S,
    CircuitBreaker,
    PluginPausedError,
    PluginUnreachableError,
)

UNREACHABLE = PluginUnreachableError("gone")


class World:
    def __init__(self) -> None:
        self.now = 100.0
        self.changes: list[bool] = []
        self.breaker = CircuitBreaker(lambda: self.now, self.changes.append)

    def call(self, error: BaseException | None = None) -> None:
        with self.breaker.call():
            if error is not None:
                raise error

    def fail(self) -> None:
        with pytest.raises(PluginUnreachableError):
            self.call(UNREACHABLE)

    def is_refused(self) -> bool:
        try:
            self.call(KeyboardInterrupt())  # tells nothing
        except PluginPausedError:
            return True
        except KeyboardInterrupt:
            return False
        raise AssertionError


def an_open_one() -> World:
    world = World()
    for _ in range(FAILURES):
        world.fail()
    return world


def test_it_opens_after_failures_in_a_row_and_refuses_at_once() -> None:
    world = World()
    for _ in range(FAILURES - 1):
        world.fail()
    world.call()
    for _ in range(FAILURES - 1):
        world.fail()
    assert (world.breaker.is_open, world.changes) == (False, [])
    world.fail()
    assert world.is_refused()
    assert (world.breaker.is_open, world.changes) == (True, [True])


@pytest.mark.parametrize("error", [ValueError("a plugin's own"), None])
def test_an_answer_of_any_kind_closes_it(error: Exception | None) -> None:
    world = an_open_one()
    world.now += FIRST_PAUSE_S
    if error is None:
        world.call()
    else:
        with pytest.raises(ValueError, match="own"):
            world.call(error)
    assert (world.breaker.is_open, world.changes) == (False, [True, False])


@pytest.mark.parametrize("error", [TimeoutError(), KeyboardInterrupt()])
def test_a_call_that_was_given_up_tells_nothing(error: BaseException) -> None:
    """Neither a failure nor an answer, and the next call is tried instead."""
    world = World()
    for _ in range(FAILURES - 1):
        world.fail()
    for _ in range(FAILURES):
        with pytest.raises(type(error)):
            world.call(error)
    assert not world.breaker.is_open
    world.fail()
    assert world.breaker.is_open
    world.now += FIRST_PAUSE_S
    with pytest.raises(type(error)):
        world.call(error)
    assert world.breaker.is_open
    assert not world.is_refused()


def test_the_pause_grows_up_to_its_limit_and_is_short_again_after_an_answer() -> None:
    world, pauses = an_open_one(), list[float]()
    for _ in range(8):
        start = world.now
        while world.is_refused():
            world.now += 0.5
        pauses.append(world.now - start)
        world.fail()
    assert pauses == [1, 2, 4, *[MAX_PAUSE_S] * 5]
    assert world.changes == [True], "told once"
    world.now += MAX_PAUSE_S
    world.call()
    for _ in range(FAILURES):
        world.fail()
    world.now += FIRST_PAUSE_S
    assert not world.is_refused()


class Calls(RuleBasedStateMachine):
    """Calls that overlap in any way."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.entered: list[object] = []
        self.open_at_entry: list[bool] = []

    @initialize(failures=st.integers(0, FAILURES))
    def begin(self, failures: int) -> None:
        for _ in range(failures):
            self.world.fail()

    @rule(seconds=st.floats(0, 2 * MAX_PAUSE_S))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds

    @rule()
    def enter(self) -> None:
        was_open = self.world.breaker.is_open
        manager = self.world.breaker.call()
        try:
            manager.__enter__()
        except PluginPausedError:
            assert was_open
            return
        self.entered.append(manager)
        self.open_at_entry.append(was_open)

    @precondition(lambda self: self.entered)
    @rule(data=st.data(), error=st.sampled_from([UNREACHABLE, ValueError(), TimeoutError(), None]))
    def leave(self, data: st.DataObject, error: Exception | None) -> None:
        index = data.draw(st.integers(0, len(self.entered) - 1))
        manager, _ = self.entered.pop(index), self.open_at_entry.pop(index)
        kind = None if error is None else type(error)
        assert not manager.__exit__(kind, error, None)  # type: ignore[attr-defined]
        if error is None or kind is ValueError:
            assert not self.world.breaker.is_open
            self.open_at_entry = [False] * len(self.entered)  # theirs was another outage

    @invariant()
    def one_call_at_most_is_tried(self) -> None:
        if self.world.breaker.is_open:
            assert sum(self.open_at_entry) <= 1

    @invariant()
    def it_never_refuses_for_longer_than_the_longest_pause(self) -> None:
        if not any(self.open_at_entry):
            now = self.world.now
            self.world.now += MAX_PAUSE_S
            assert not self.world.is_refused()
            self.world.now = now

    @invariant()
    def changes_alternate(self) -> None:
        expected = [index % 2 == 0 for index in range(len(self.world.changes))]
        assert self.world.changes == expected


TestCalls = Calls.TestCase
