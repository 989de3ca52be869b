"""Blocks of a reply that grows, sent beside its text."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from serve_app.rendering.live import LiveBlocks
from tests.support.fakes.renderers import FakeRenderer, block
from tests.support.waiting import until


class Reader:
    """Keeps what is sent, and the blocks as they are at the end."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, str]] = []
        self.may_take = asyncio.Event()
        self.may_take.set()

    async def send(self, blocks: Sequence[tuple[int, str]]) -> None:
        await self.may_take.wait()
        self.sent += blocks

    @property
    def blocks(self) -> list[str]:
        shown = dict(self.sent)
        return [shown[index] for index in range(len(shown))]


@pytest.fixture
def renderer() -> FakeRenderer:
    return FakeRenderer()


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
async def live(renderer: FakeRenderer, reader: Reader) -> AsyncIterator[LiveBlocks]:
    blocks = LiveBlocks(renderer, reader.send, interval_s=0.01)
    yield blocks
    await blocks.close()


async def test_closed_blocks_are_sent_once_and_the_open_one_as_it_changes(
    live: LiveBlocks, renderer: FakeRenderer, reader: Reader
) -> None:
    for part, num_sent in (("a", 1), ("b", 2), ("\nc", 3), ("\n", 3), ("d\ne", 5)):
        num_asked = len(renderer.asked)
        live.add(part)
        await until(lambda n=num_asked: len(renderer.asked) > n)  # type: ignore[misc]
        await until(lambda n=num_sent: len(reader.sent) >= n)  # type: ignore[misc]
    await live.finish()
    assert reader.sent == [
        *((0, block("a")), (0, block("ab"))),
        *((1, block("c")), (2, block("d")), (3, block("e"))),
    ]
    assert renderer.remembered == [("ab\nc\nd\ne", [*map(block, ("ab", "c", "d", "e"))])]


async def test_closed_text_is_not_rendered_again(
    live: LiveBlocks, renderer: FakeRenderer, reader: Reader
) -> None:
    live.add("a\nb\nc")
    await until(lambda: len(reader.sent) == 3)
    live.add("d")
    await live.finish()
    assert renderer.asked[0] == ("a\nb\nc", False)
    assert {text for text, _ in renderer.asked[1:]} == {"cd"} and renderer.asked[-1][1]


async def test_it_renders_at_intervals(renderer: FakeRenderer, reader: Reader) -> None:
    live = LiveBlocks(renderer, reader.send, interval_s=0.2)
    for _ in range(30):
        live.add("a")
        await asyncio.sleep(0.01)
    assert len(renderer.asked) <= 3
    await live.finish()
    assert reader.blocks == [block(30 * "a")]


async def test_the_end_does_not_wait_for_an_interval(
    renderer: FakeRenderer, reader: Reader
) -> None:
    live = LiveBlocks(renderer, reader.send, interval_s=100)
    live.add("a")
    await until(lambda: bool(reader.sent))
    live.add("b")
    async with asyncio.timeout(5):
        await live.finish()
    assert reader.blocks == [block("ab")]


async def test_a_renderer_that_hangs_costs_a_moment(
    live: LiveBlocks, renderer: FakeRenderer, reader: Reader
) -> None:
    live.add("a\nb")
    await until(lambda: len(reader.sent) == 2)
    renderer.may_go_on.clear()
    live.add("<c>\nd")
    await until(lambda: len(renderer.asked) > 1)
    await live.finish(within_s=0.05)
    assert reader.blocks == [block("a"), "<p>b&lt;c&gt;<br>\nd</p>"]
    assert not renderer.remembered


async def test_a_reader_that_is_slow_gets_all_blocks(live: LiveBlocks, reader: Reader) -> None:
    reader.may_take.clear()
    live.add("a\nb\nc")
    finishing = asyncio.create_task(live.finish(within_s=0.05))
    await asyncio.sleep(0.1)
    assert not finishing.done() and not reader.sent
    reader.may_take.set()
    await finishing
    assert reader.blocks == [*map(block, "abc")]


async def test_a_text_that_failed_once_is_not_tried_again(
    live: LiveBlocks, renderer: FakeRenderer, reader: Reader
) -> None:
    renderer.is_good = False
    live.add("a\nb")
    await until(lambda: len(reader.sent) == 2)
    live.add("c\nd")
    await live.finish()
    assert len(renderer.asked) == 1
    assert reader.blocks == [block("a"), "<p>bc<br>\nd</p>"]
    assert not renderer.remembered


async def test_a_reply_can_begin_again(
    live: LiveBlocks, renderer: FakeRenderer, reader: Reader
) -> None:
    renderer.may_go_on.clear()
    live.add("old\ntext")
    await until(lambda: bool(renderer.asked))
    live.reset()
    live.add("new")
    renderer.may_go_on.set()
    await live.finish()
    assert reader.blocks == [block("new")], "what was being rendered is dropped"


async def test_nothing_is_sent_of_no_text(live: LiveBlocks, reader: Reader) -> None:
    await live.finish()
    assert not reader.sent
