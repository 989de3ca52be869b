"""Citations in a reply: `<sup><|n|></sup>` for the n-th item of the turn's search results.

A reply streams in pieces that may split a citation anywhere, so a tail that could be the start of
one is held back until more text decides it. All other text passes through unchanged.
"""

import re

_OPENING, _NUMBER, _CLOSING = "<sup><|", "[0-9]+", "|></sup>"
_CITATION = re.compile(f"{re.escape(_OPENING)}({_NUMBER}){re.escape(_CLOSING)}")


def _incomplete() -> re.Pattern[str]:
    """Matches an incomplete citation at the end of a text: any prefix of one."""
    pattern = ""
    for part in reversed([*map(re.escape, _OPENING), _NUMBER, *map(re.escape, _CLOSING[:-1])]):
        pattern = f"{part}(?:{pattern})?" if pattern else part
    return re.compile(rf"{pattern}\Z")


_INCOMPLETE = _incomplete()


class CitationFilter:
    """Drops a reply's citations of items that were not shown."""

    def __init__(self, num_items: int) -> None:
        self._numbers = {str(number) for number in range(1, num_items + 1)}
        self._held = ""

    def feed(self, text: str) -> str:
        """Takes the next piece of the reply; returns the text that can be sent now, maybe none."""
        text = self._held + text
        kept: list[str] = []
        start = 0
        for citation in _CITATION.finditer(text):
            kept.append(text[start : citation.start()])
            if citation[1] in self._numbers:
                kept.append(citation[0])
            start = citation.end()
        incomplete = _INCOMPLETE.search(text, start)
        end = incomplete.start() if incomplete else len(text)
        self._held = text[end:]
        return "".join([*kept, text[start:end]])

    def end(self) -> str:
        """The text still held back at the end of the reply; it is no citation."""
        held, self._held = self._held, ""
        return held
