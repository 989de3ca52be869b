"""A renderer that says what it was asked, and can be held."""

import asyncio
from collections.abc import Sequence

from serve_app.rendering.renderer import Rendered


class FakeRenderer:
    """Satisfies Renderer: a block is a line. It waits while `may_go_on` is clear."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool]] = []
        self.remembered: list[tuple[str, list[str]]] = []
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.num_opened = 0
        self.is_good = True

    def open(self) -> None:
        self.num_opened += 1

    async def render(self, text: str, *, is_whole: bool) -> Rendered:
        self.asked.append((text, is_whole))
        await self.may_go_on.wait()
        *closed, tail = text.split("\n")
        if is_whole:
            lines = [*closed, *([tail] if tail else [])]
            return Rendered(tuple(map(block, lines)), len(text), is_good=self.is_good)
        consumed = len(text) - len(tail)
        shown = block(tail) if tail else ""
        return Rendered(tuple(map(block, closed)), consumed, shown, self.is_good)

    def remember(self, text: str, blocks: Sequence[str]) -> None:
        self.remembered.append((text, [*blocks]))

    async def close(self) -> None:
        pass


def block(line: str) -> str:
    """What it makes of a line."""
    return f"<i>{line}</i>"
