"""The phases of a start, on a clock that is set by hand, and how others learn of them."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from serve_app.deployments.start_up import StartUp, announced
from serve_app.groups import GroupState
from serve_app.remote.loading import LoadingBoard
from tests.support.waiting import PATIENCE_S, POLL_S

Groups = Sequence[GroupState]


def test_a_phase_within_another_counts_once() -> None:
    now = [0.0]
    start = StartUp(lambda: now[0])
    with start.phase("imports"):
        now[0] = 2
    with start.phase("warm-up"):
        now[0] = 3
        with start.phase("weights"):
            now[0] = 7
            assert start.current == "weights"
        now[0] = 8
        assert start.current == "warm-up"
    assert start.current is None
    assert start.phases == {"imports": 2, "weights": 4, "warm-up": 2}


async def read_until(board: LoadingBoard, is_good: Callable[[Groups], bool]) -> Groups:
    async with asyncio.timeout(PATIENCE_S):
        while not is_good(found := await board.read()):
            await asyncio.sleep(POLL_S)
    return found


async def test_a_start_is_in_the_store_for_as_long_as_it_takes(store_url: str) -> None:
    board, start = LoadingBoard(store_url), StartUp()
    with announced(store_url, lambda: GroupState("loading", "one", 2, start.current)):
        await read_until(board, bool)
        with start.phase("weights"):
            (group,) = await read_until(board, lambda groups: groups[0].phase is not None)
            assert group == GroupState("loading", "one", 2, "weights")
            assert not group.is_serving
    assert await board.read() == []
    await board.close()


async def test_a_start_that_fails_is_no_longer_listed(store_url: str) -> None:
    board = LoadingBoard(store_url)
    with pytest.raises(ZeroDivisionError), announced(store_url, lambda: GroupState("loading", "a")):
        await read_until(board, bool)
        raise ZeroDivisionError
    assert await board.read() == []
    await board.close()
