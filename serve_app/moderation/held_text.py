"""Text that is held back until the moderation hook has passed it.

    told ──────────────────────┤ held: at most PIECE + HOLD characters, and the newest item
    …approved, approved, appro │ ved so far, and what the model writes now
                               └─ the hook is asked about all that is held, as it grows by PIECE

After each answer all but the last HOLD characters are told, so a phrase of up to HOLD characters is
always seen whole before any of it is told.
"""

from collections import deque
from typing import Generic, Protocol, TypeVar

PIECE = 80
HOLD = 80


class HasText(Protocol):
    """A piece of a stream."""

    @property
    def text(self) -> str: ...


Item = TypeVar("Item", bound=HasText)


class HeldText(Generic[Item]):
    """The items that were not told yet. `num_told` counts the characters that were."""

    def __init__(self, num_told: int = 0) -> None:
        self.num_told = num_told
        self._items: deque[Item] = deque()
        self._num_asked = 0
        self._num_held = 0

    @property
    def text(self) -> str:
        return "".join(item.text for item in self._items)

    @property
    def is_due(self) -> bool:
        """Whether it has grown by a piece since the hook was asked."""
        return self._num_held - self._num_asked >= PIECE

    def add(self, item: Item) -> None:
        self._items.append(item)
        self._num_held += len(item.text)

    def release(self, hold: int = HOLD) -> list[Item]:
        """The items that may be told, after the hook has passed them all."""
        released: list[Item] = []
        while self._items and self._num_held - len(self._items[0].text) >= hold:
            released.append(self._items.popleft())
            self._num_held -= len(released[-1].text)
        self.num_told += sum(len(item.text) for item in released)
        self._num_asked = self._num_held
        return released
