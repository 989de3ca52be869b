"""The list of groups that load, on every store."""

from collections.abc import AsyncIterator

import pytest

from serve_app.groups import GroupState
from serve_app.remote import loading as module
from serve_app.remote.loading import LoadingBoard
from tests.serve_app.store_server import StoreServer

ONE = GroupState("loading", "one", 2, "imports")
TWO = GroupState("loading", "two", 1)


@pytest.fixture
async def boards(server: StoreServer) -> AsyncIterator[tuple[LoadingBoard, LoadingBoard]]:
    server.command("FLUSHALL")
    made = LoadingBoard(server.url), LoadingBoard(server.url)
    yield made
    for board in made:
        await board.close()


async def test_each_group_is_listed_as_it_said_last(
    boards: tuple[LoadingBoard, LoadingBoard],
) -> None:
    one, two = boards
    assert await one.read() == []
    assert await two.put(TWO) and await one.put(ONE)
    assert await two.read() == [ONE, TWO]
    moved = GroupState("loading", "one", 2, "weights")
    await one.put(moved)
    assert await two.read() == [moved, TWO]
    await two.put(None)
    assert await two.read() == [moved]


async def test_a_group_that_says_no_more_is_forgotten(
    boards: tuple[LoadingBoard, LoadingBoard], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = boards
    await two.put(TWO)
    monkeypatch.setattr(module, "HERE_S", -1.0)  # it has said so long ago
    await one.put(ONE)
    assert await one.read() == [TWO]


async def test_a_store_that_is_away_holds_nobody_up() -> None:
    board = LoadingBoard("unix:///nowhere/store.sock")
    assert await board.read() == ()
    assert not await board.put(ONE)
    await board.close()
