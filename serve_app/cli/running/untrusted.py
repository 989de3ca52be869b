"""Text of models, plugins and servers, made harmless for a terminal."""

import re
import unicodedata

# CSI and OSC sequences as ECMA-48 has them; others lose their ESC to the line below.
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
)
# Embeddings, overrides and isolates of writing direction: they show text in another order.
_REORDERING = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}


def printable(text: str) -> str:
    """`text` without escape sequences, control characters and what reorders it.

    Newlines and tabs stay. A sequence that is cut loses what makes it one.
    """
    return "".join(filter(_is_harmless, _SEQUENCE.sub("", text)))


def one_line(text: str) -> str:
    """`printable` text with its white space, newlines too, as single spaces."""
    return " ".join(printable(text).split())


def _is_harmless(character: str) -> bool:
    if character in "\n\t":
        return True
    return unicodedata.category(character) != "Cc" and ord(character) not in _REORDERING
