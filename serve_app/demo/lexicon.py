"""Words the demo conversations are filled with: common ones, and made-up ones that force copying.

A model that has seen a name a thousand times can guess it; one that has never seen it must look
it up in the chat. So a share of all names, cities and topics is put together at random.
"""

from serve_app.demo.draw import Draw
from serve_app.demo.phrasebook import Language, phrasebook

# GB 2312 level 1, sorted by sound: the 3755 characters of everyday Chinese.
COMMON_HANZI = "".join(
    bytes((row, cell)).decode("gb2312")
    for row in range(0xB0, 0xD8)
    for cell in range(0xA1, 0xFF)
    if (row, cell) < (0xD7, 0xFA)
)

_WORDS = phrasebook("words")
# Of words in training, beside the share that the evaluation has too: common ones get guessed.
_EXTRA_MADE_UP = 0.35
# Kinds of words, for `word`.
WORD_KINDS = tuple(_WORDS["zh"])


def made_up_hanzi(draw: Draw, low: int = 2, high: int = 3) -> str:
    """Any everyday characters in a row."""
    return "".join(draw.choice(COMMON_HANZI) for _ in range(draw.integer(low, high)))


def made_up_word(draw: Draw) -> str:
    """A capitalised word that can be spoken: `Brealun`."""
    parts = range(draw.integer(2, 3))
    word = "".join(draw.phrase(_WORDS["onsets"]) + draw.phrase(_WORDS["vowels"]) for _ in parts)
    return (word + draw.phrase(_WORDS["codas"])).capitalize()


def made_up(draw: Draw, language: Language) -> str:
    """A word that nobody knows. In training some are as short and as small as common ones are."""
    is_plain = not draw.held_out and draw.chance(0.5)
    if language == "zh":
        return made_up_hanzi(draw, 1 if is_plain else 2, 3)
    return made_up_word(draw).lower() if is_plain else made_up_word(draw)


def person(draw: Draw, language: Language, kind: str = "name") -> str:
    """A name, common or made up, that is not held out as a `kind`."""

    def make() -> str:
        if _is_strange(draw):
            return made_up_hanzi(draw) if language == "zh" else made_up_word(draw)
        return _chinese(draw) if language == "zh" else _english(draw)

    return draw.fresh(make, kind)


def word(
    draw: Draw, kind: str, language: Language, share_made_up: float = 0.25, strange: float = 0
) -> str:
    """A word of `kind` (one of WORD_KINDS); with probability `share_made_up` one that nobody
    knows, with probability `strange` one of another kind.
    """

    def make() -> str:
        if _is_strange(draw) or draw.chance(share_made_up):
            return made_up(draw, language)
        source = draw.choice(WORD_KINDS) if draw.chance(strange) else kind
        return draw.phrase(_WORDS[language][source])

    return draw.fresh(make, kind)


def _is_strange(draw: Draw) -> bool:
    """Whether training shows a made-up word where the evaluation might show a common one."""
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
