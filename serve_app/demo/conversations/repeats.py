"""Turns in which the user asks the model to repeat a few words.

A small model learns to copy last and needs it most: for numbers, names and facts. Here a reply
consists of copied tokens, and any token may occur.
"""

from serve_app.demo.conversations.demo_turn import DemoTurn
from serve_app.demo.conversations.draw import Draw
from serve_app.demo.conversations.lexicon import WORD_KINDS, made_up, person, word
from serve_app.demo.conversations.phrasebook import Language, phrasebook

_PHRASES = phrasebook("repeats")


def repeat_turn(draw: Draw, language: Language) -> DemoTurn:
    """The user dictates and the model repeats."""
    phrases = _PHRASES[language]

    def make() -> str:
        joint = draw.phrase(phrases["joints"])
        return joint.join(_piece(draw, language) for _ in range(draw.integer(1, 5)))

    text = draw.fresh(make, "repeat")
    request = draw.phrase(phrases["requests"]).format(x=text)
    return DemoTurn(request, phrases["thoughts"], phrases["reply"].format(x=text))


def _piece(draw: Draw, language: Language) -> str:
    """A made-up word, a number, a word of any kind or a name; a few in the other language."""
    if draw.chance(0.1):
        language = "en" if language == "zh" else "zh"
    style = draw.integer(0, 9)
    if style < 5:
        return made_up(draw, language)
    if style == 5:
        return str(draw.integer(0, 10 ** draw.integer(1, 6)))
    if style == 6:
        return person(draw, language)
    return word(draw, draw.choice(WORD_KINDS), language)
