"""Text that is held back until the moderation hook has passed it.

    told ──────────────┤ approved ┤ held: at most PIECE + HOLD characters, and the newest item
                                  └─ the hook is asked about it when the text has grown by a PIECE

After each answer all but the last HOLD characters are approved, so a phrase of up to HOLD
characters is always seen whole before any of it is told. What the hook is asked, and where a
refusal cuts the text, depends on the text alone, however it comes in items; so it is the same when
a reply is resumed or made again.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

PIECE = 80
HOLD = 80


class HasText(Protocol):
    """A piece of a stream."""

    @property
    def text(self) -> str: ...


Item = TypeVar("Item", bound=HasText)


class HeldText(Generic[Item]):
    """The items of a text that were not told yet; `num_told` characters of it were before."""

    def __init__(self, num_told: int = 0) -> None:
        self._items: deque[Item] = deque()
        self._start = self._end = num_told
        self._num_asked = 0
        while self.num_approved < num_told:
            self._num_asked += 1

    @property
    def num_approved(self) -> int:
        """How many characters, from the first on, may be told."""
        return max(0, self._num_asked * PIECE - HOLD)

    @property
    def is_due(self) -> bool:
        """Whether the hook is to be asked now."""
        return self._end >= (self._num_asked + 1) * PIECE

    @property
    def question(self) -> str:
        """What to ask the hook about now; at the end, all that is left."""
        text = self._text[max(0, self.num_approved - self._start) :]
        return text[: (self._num_asked + 1) * PIECE - self.num_approved]

    def add(self, item: Item) -> None:
        self._items.append(item)
        self._end += len(item.text)

    async def ask_due(self, refuses: Callable[[str], Awaitable[bool]]) -> tuple[list[Item], bool]:
        """The items that may be told now, and whether the hook refuses what comes after them."""
        told: list[Item] = []
        while self.is_due:
            if await refuses(self.question):
                return told, True
            told += self.approve()
        return told, False

    def approve(self) -> list[Item]:
        """The items that may be told whole, after the hook has passed the question."""
        self._num_asked += 1
        released: list[Item] = []
        while self._items and self._start + len(self._items[0].text) <= self.num_approved:
            released.append(self._pop())
        return released

    def release(self) -> list[Item]:
        """All items, after the hook has passed what was left."""
        return [self._pop() for _ in range(len(self._items))]

    def cut(self) -> str:
        """What may still be told after a refusal: the approved part of an item."""
        return self._text[: max(0, self.num_approved - self._start)]

    @property
    def _text(self) -> str:
        return "".join(item.text for item in self._items)

    def _pop(self) -> Item:
        item = self._items.popleft()
        self._start += len(item.text)
        return item
