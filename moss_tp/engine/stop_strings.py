"""Finds the strings that end a reply in its text as it comes, piece by piece.

What could still become a stop string is held back, so that no part of one is ever shown; and
which one is found does not depend on how the text is cut into pieces. It knows no tokens.
"""

from collections.abc import Sequence


class StopStrings:
    """State of one reply."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""

    def push(self, piece: str, is_armed: bool = True) -> tuple[str, bool]:
        """Text that can be shown now, and whether a stop string ended the reply right after it.

        Of several the one that ends first counts, of those that end together the longest. One
        that ends within a piece that is not `is_armed` is text like any other.
        """
        if not self._stops:
            return piece, False
        text = self._held + piece
        start = self._find(text, len(self._held)) if is_armed else None
        if start is not None:
            self._held = ""
            return text[:start], True
        num_shown = len(text) - self._num_held(text)
        self._held = text[num_shown:]
        return text[:num_shown], False

    def rest(self) -> str:
        """What is still held back, now that the reply ended without a stop string."""
        rest, self._held = self._held, ""
        return rest

    def _find(self, text: str, num_old: int) -> int | None:
        """Where the stop string that counts begins; it must end beyond `num_old` characters."""
        found = []
        for stop in self._stops:
            start = text.find(stop, max(0, num_old + 1 - len(stop)))
            if start >= 0:
                found.append((start + len(stop), start))
        return min(found)[1] if found else None

    def _num_held(self, text: str) -> int:
        """Length of the longest end of `text` that a stop string begins with and goes on from."""
        longest = max(map(len, self._stops)) - 1
        for start in range(max(0, len(text) - longest), len(text)):
            end = text[start:]
            if any(len(stop) > len(end) and stop.startswith(end) for stop in self._stops):
                return len(end)
        return 0
