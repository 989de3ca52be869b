"""Letters in the styles of mathematics (𝐱, ℝ, ℒ), for browsers that know no `mathvariant`."""

import unicodedata
from functools import lru_cache

_STYLES = {
    "bold": "BOLD",
    "italic": "ITALIC",
    "bold-italic": "BOLD ITALIC",
    "double-struck": "DOUBLE-STRUCK",
    "script": "SCRIPT",
    "bold-script": "BOLD SCRIPT",
    "fraktur": "FRAKTUR",
    "bold-fraktur": "BOLD FRAKTUR",
    "sans-serif": "SANS-SERIF",
    "bold-sans-serif": "SANS-SERIF BOLD",
    "sans-serif-italic": "SANS-SERIF ITALIC",
    "monospace": "MONOSPACE",
}


def styled(text: str, variant: str) -> tuple[str, bool]:
    """`text` in a value of `mathvariant`, and whether that needs no attribute any more."""
    style = _STYLES.get(variant)
    if style is None:
        return text, False
    return "".join(_letter(char, style) for char in text), True


@lru_cache(1024)
def _letter(char: str, style: str) -> str:
    """Unicode had some of these letters (ℝ, ℋ, ℭ) before the others, by other names."""
    name = unicodedata.name(char, "")
    if not (char.isascii() and char.isalnum()) and not name.startswith("GREEK"):
        return char
    kind = name.removeprefix("LATIN ").removeprefix("GREEK ").replace(" LETTER", "")
    older = {"FRAKTUR": "BLACK-LETTER"}.get(style, style)
    for wanted in (f"MATHEMATICAL {style} {kind}", f"{older} {kind}"):
        try:
            return unicodedata.lookup(wanted)
        except KeyError:
            continue
    return char
