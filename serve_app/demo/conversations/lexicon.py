"""The words that fill the demo conversations: common ones, and made-up ones that force copying.

A model can guess a name that it has seen a thousand times; one that it has never seen it must copy
from the chat. So a share of all names, cities and topics is assembled at random: from syllables,
from parts of common words (whose tokens are rare elsewhere), or from letters.
"""

import string

from serve_app.demo.conversations.draw import Draw
from serve_app.demo.conversations.phrasebook import Language, phrasebook

# GB 2312 level 1: the 3755 characters of everyday Chinese.
COMMON_HANZI = "".join(
    bytes((row, cell)).decode("gb2312")
    for row in range(0xB0, 0xD8)
    for cell in range(0xA1, 0xFF)
    if (row, cell) < (0xD7, 0xFA)
)

_WORDS = phrasebook("words")
# Share of training words that are made up in addition to those that the evaluation has too.
_EXTRA_MADE_UP = 0.35
# The kinds of `word`.
WORD_KINDS = tuple(_WORDS["zh"])
_ENGLISH_WORDS = tuple(text.lower() for texts in _WORDS["en"].values() for text in texts)
_WORD_HANZI = "".join(
    sorted({hanzi for texts in _WORDS["zh"].values() for hanzi in "".join(texts)})
)


def made_up_hanzi(draw: Draw, low: int = 2, high: int = 3) -> str:
    """A sequence of random everyday characters."""
    return "".join(draw.choice(COMMON_HANZI) for _ in range(draw.integer(low, high)))


def made_up_word(draw: Draw) -> str:
    """A capitalised, pronounceable word such as `Brealun`."""
    parts = range(draw.integer(2, 3))
    word = "".join(draw.phrase(_WORDS["onsets"]) + draw.phrase(_WORDS["vowels"]) for _ in parts)
    return (word + draw.phrase(_WORDS["codas"])).capitalize()


def made_up(draw: Draw, language: Language) -> str:
    """A word that does not exist. In training some are as short as common words, or made of their
    parts."""
    if draw.held_out:
        return made_up_hanzi(draw, 2, 3) if language == "zh" else made_up_word(draw)
    if language == "zh":
        source = _WORD_HANZI if draw.chance(0.4) else COMMON_HANZI
        return "".join(draw.phrase(source) for _ in range(draw.integer(1, 3)))
    text: str = draw.weighted({made_up_word: 4, _spliced: 4, _letters: 2})(draw)
    return text.capitalize() if draw.chance(0.5) else text.lower()


def _spliced(draw: Draw) -> str:
    """The beginning of one common word and the end of another."""
    first, last = draw.phrase(_ENGLISH_WORDS), draw.phrase(_ENGLISH_WORDS)
    return first[: draw.integer(1, len(first))] + last[draw.integer(0, len(last) - 1) :]


def _letters(draw: Draw) -> str:
    return "".join(draw.choice(string.ascii_lowercase) for _ in range(draw.integer(2, 7)))


def person(draw: Draw, language: Language, kind: str = "name") -> str:
    """A name, common or made up; held out as a `kind` if and only if `draw` is."""

    def make() -> str:
        if _is_extra_made_up(draw):
            return made_up(draw, language)
        return _chinese(draw) if language == "zh" else _english(draw)

    return draw.fresh(make, kind)


def word(
    draw: Draw, kind: str, language: Language, share_made_up: float = 0.25, other_kinds: float = 0
) -> str:
    """A word of `kind` (one of WORD_KINDS): with probability `share_made_up` a made-up one, else
    with probability `other_kinds` a word of any kind.
    """

    def make() -> str:
        if _is_extra_made_up(draw) or draw.chance(share_made_up):
            return made_up(draw, language)
        source = draw.choice(WORD_KINDS) if draw.chance(other_kinds) else kind
        return draw.phrase(_WORDS[language][source])

    return draw.fresh(make, kind)


def _is_extra_made_up(draw: Draw) -> bool:
    """Whether to make up a word in training where the evaluation would draw as usual."""
    return not draw.held_out and draw.chance(_EXTRA_MADE_UP)


def _chinese(draw: Draw) -> str:
    style = draw.integer(0, 9)
    if style < 5:
        given = "".join(draw.phrase(_WORDS["given"]) for _ in range(draw.integer(1, 2)))
        return draw.phrase(_WORDS["surnames"]) + given
    if style < 7:
        return draw.phrase(_WORDS["nick"]) + draw.phrase(_WORDS["given"] + _WORDS["surnames"])
    if style == 7:
        return _english(draw)
    return draw.phrase(_WORDS["surnames"]) + made_up_hanzi(draw, 1, 2)


def _english(draw: Draw) -> str:
    return draw.phrase(_WORDS["english_names"]) if draw.chance(0.5) else made_up_word(draw)
