"""Citations in a reply: `<sup><|n|></sup>` for the n-th item of the turn's search results.

A reply arrives in pieces that may cut a citation anywhere, so a tail that could begin one is held
back until it is whole or broken. Whatever is no citation passes as it came.
"""

import re

_OPENING, _NUMBER, _CLOSING = "<sup><|", "[0-9]+", "|></sup>"
_CITATION = re.compile(f"{re.escape(_OPENING)}({_NUMBER}){re.escape(_CLOSING)}")


def _beginning() -> re.Pattern[str]:
    """Matches the text's end from where a citation may begin there: each part may be the last."""
    pattern = ""
    for part in reversed([*map(re.escape, _OPENING), _NUMBER, *map(re.escape, _CLOSING[:-1])]):
        pattern = f"{part}(?:{pattern})?" if pattern else part
    return re.compile(rf"{pattern}\Z")


_BEGINNING = _beginning()


class CitationFilter:
    """Drops the citations of one reply whose number is not that of a shown item."""

    def __init__(self, num_items: int) -> None:
        self._numbers = {str(number) for number in range(1, num_items + 1)}
        self._held = ""

    def feed(self, text: str) -> str:
        """What can be told now that `text` has come; may be empty."""
        text = self._held + text
        kept: list[str] = []
        start = 0
        for citation in _CITATION.finditer(text):
            kept.append(text[start : citation.start()])
            if citation[1] in self._numbers:
                kept.append(citation[0])
            start = citation.end()
        beginning = _BEGINNING.search(text, start)
        end = beginning.start() if beginning else len(text)
        self._held = text[end:]
        return "".join([*kept, text[start:end]])

    def end(self) -> str:
        """What was held back when the reply ended: it became no citation."""
        held, self._held = self._held, ""
        return held
