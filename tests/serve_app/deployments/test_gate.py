"""Suspects enter one by one, the oldest first; others do not wait."""

import asyncio
from contextlib import suppress

import pytest

from serve_app.deployments import gate as module
from serve_app.deployments.gate import SuspectGate


class Visit:
    """A request that holds its turn until it is told to end it."""

    def __init__(self, gate: SuspectGate, age_s: float | None) -> None:
        self.is_in = False
        self.end_turn = asyncio.Event()
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._run(gate, age_s))

    async def _run(self, gate: SuspectGate, age_s: float | None) -> None:
        async with gate.turn(age_s) as turn:
            self.is_in = True
            await self.end_turn.wait()
            turn.end()
            turn.end()
            await self.leave.wait()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def visits(gate: SuspectGate, *ages_s: float | None) -> list[Visit]:
    made = [Visit(gate, age_s) for age_s in ages_s]
    await settle()
    return made


async def test_suspects_enter_one_by_one_and_the_oldest_first() -> None:
    first, young, old = await visits(SuspectGate(), 1.0, 2.0, 3.0)
    assert [each.is_in for each in (first, young, old)] == [True, False, False]
    first.end_turn.set()
    await settle()
    assert [each.is_in for each in (first, young, old)] == [True, False, True]
    old.end_turn.set()
    await settle()
    assert young.is_in
    for each in (first, young, old):
        each.end_turn.set()
        each.leave.set()
        await each.task


async def test_who_is_no_suspect_does_not_wait() -> None:
    suspect, other = await visits(SuspectGate(), 1.0, None)
    assert suspect.is_in and other.is_in


async def test_a_suspect_that_fails_or_is_cancelled_lets_the_next_in() -> None:
    gate = SuspectGate()
    first, second, third, fourth = await visits(gate, 4.0, 3.0, 2.0, 1.0)
    second.task.cancel()
    first.task.cancel()
    await settle()
    assert third.is_in and not fourth.is_in
    third.task.cancel()
    await asyncio.sleep(0)
    fourth.task.cancel()  # just let in, or just before that
    await settle()
    (fifth,) = await visits(gate, 1.0)
    assert fifth.is_in


async def test_a_slow_suspect_does_not_keep_the_others_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "HOLD_S", 0.05)
    slow, next_ = await visits(SuspectGate(), 2.0, 1.0)
    async with asyncio.timeout(5):
        while not next_.is_in:
            await asyncio.sleep(0.01)
    for each in (slow, next_):
        each.task.cancel()
        with suppress(asyncio.CancelledError):
            await each.task
