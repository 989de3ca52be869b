"""Finds stop strings in the text of a reply, piece by piece.

Text that could be the beginning of a stop string is held back, so that no part of one is ever
shown. The result does not depend on how the text is split into pieces. It knows no tokens.
"""

from collections.abc import Sequence


class StopStrings:
    """The state of one reply."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""

    def push(self, piece: str, is_armed: bool = True) -> tuple[str, bool]:
        """The text that can be shown now, and whether a stop string follows it and ends the reply.

        Of several stop strings the one that ends first counts, then the longest. A stop string
        that ends within a piece that is not `is_armed` is ordinary text.
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
        """The text that is still held back, once the reply ended without a stop string."""
        rest, self._held = self._held, ""
        return rest

    def _find(self, text: str, num_old: int) -> int | None:
        """Where the first stop string starts that ends after the first `num_old` characters."""
        found = []
        for stop in self._stops:
            start = text.find(stop, max(0, num_old + 1 - len(stop)))
            if start >= 0:
                found.append((start + len(stop), start))
        return min(found)[1] if found else None

    def _num_held(self, text: str) -> int:
        """Length of the longest suffix of `text` that is a proper prefix of a stop string."""
        longest = max(map(len, self._stops)) - 1
        for start in range(max(0, len(text) - longest), len(text)):
            end = text[start:]
            if any(len(stop) > len(end) and stop.startswith(end) for stop in self._stops):
                return len(end)
        return 0
