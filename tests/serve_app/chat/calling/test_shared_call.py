"""A call that several choices wait for: it outlives the one that started it, and not the last."""

import asyncio

import pytest

from plugins_svc.sdk.output import PluginOutput
from serve_app.chat.calling.shared_call import SharedCall
from serve_app.chat.resume import TimedOutput

OUTPUT: TimedOutput = PluginOutput(True, ("2",)), 7


class Work:
    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.is_cancelled = False

    async def run(self) -> TimedOutput:
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise
        return OUTPUT


async def waiting(shared: SharedCall[TimedOutput]) -> "asyncio.Task[TimedOutput]":
    async def wait() -> TimedOutput:
        shared.join()
        try:
            return await shared.result()
        finally:
            await shared.leave()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    return task


@pytest.mark.parametrize("leaving", [0, 1])
async def test_it_outlives_a_choice_that_is_cancelled(leaving: int) -> None:
    work = Work()
    shared = SharedCall(work.run())
    tasks = [await waiting(shared), await waiting(shared)]
    tasks[leaving].cancel()
    await asyncio.wait({tasks[leaving]})
    assert not work.is_cancelled and not shared.is_given_up
    work.may_end.set()
    assert await tasks[1 - leaving] == OUTPUT
    assert not shared.is_given_up
    assert await (await waiting(shared)) == OUTPUT, "who comes later finds the result"


async def test_it_ends_with_the_last_choice() -> None:
    work = Work()
    shared = SharedCall(work.run())
    tasks = [await waiting(shared), await waiting(shared)]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert work.is_cancelled and shared.is_given_up


async def test_all_get_its_failure() -> None:
    async def fail() -> TimedOutput:
        raise RuntimeError("away")

    shared = SharedCall(fail())
    tasks = [await waiting(shared), await waiting(shared)]
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(answer) for answer in answers] == ["away", "away"]
