"""What renders replies, as its callers see it, and what stands in for it: escaped text."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from serve_app.rendering.escaped import escaped


@dataclass(frozen=True)
class Rendered:
    """The HTML of a text's blocks, which are made of its first `consumed` characters, and of the
    open text after them, "" if there is none. `is_good` unless some of it took too long.
    """

    blocks: tuple[str, ...]
    consumed: int
    tail: str = ""
    is_good: bool = True


class Renderer(Protocol):
    """Never raises for a text, and never takes much longer than a second for a block of it."""

    def open(self) -> None:
        """Makes ready to render soon. Needs a running event loop."""

    async def render(self, text: str, *, is_whole: bool) -> Rendered:
        """All blocks of a whole text; those that are closed of one that grows."""

    def remember(self, text: str, blocks: Sequence[str]) -> None:
        """Takes the blocks of a whole text that were made as it grew."""

    async def close(self) -> None: ...


class EscapedRenderer:
    """Satisfies Renderer: shows markdown as it is written."""

    def open(self) -> None:
        pass

    async def render(self, text: str, *, is_whole: bool) -> Rendered:
        return plain(text, is_whole=is_whole)

    def remember(self, text: str, blocks: Sequence[str]) -> None:
        pass

    async def close(self) -> None:
        pass


def plain(text: str, *, is_whole: bool, blocks: Sequence[str] = (), start: int = 0) -> Rendered:
    """`blocks`, which are made of `text` up to `start`, and the rest as one block of text."""
    rest = escaped(text[start:]) if text[start:].strip() else ""
    if not is_whole:
        return Rendered((*blocks,), start, rest, is_good=False)
    return Rendered((*blocks, *([rest] if rest else [])), len(text), is_good=False)


async def all_blocks(
    renderer: Renderer, texts: Iterable[str], within_s: float
) -> dict[str, list[str]]:
    """The blocks of whole texts, by text. What is not rendered in time is escaped."""
    ends_at = time.monotonic() + within_s
    blocks: dict[str, list[str]] = {}
    for text in texts:
        if text not in blocks:
            blocks[text] = await _blocks_until(renderer, text, ends_at)
    return blocks


async def _blocks_until(renderer: Renderer, text: str, ends_at: float) -> list[str]:
    left_s = ends_at - time.monotonic()
    try:
        async with asyncio.timeout(max(0.0, left_s)):
            return [*(await renderer.render(text, is_whole=True)).blocks]
    except TimeoutError:
        return [*plain(text, is_whole=True).blocks]
