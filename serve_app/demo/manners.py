"""The words around and within a request: a name, a thank-you, or something that means nothing.

A model of this size takes a phrasing it has never met for something else; having passed over any
word before, within and after a request, it finds the request in new ones too.
"""

import re

from serve_app.demo.draw import Draw
from serve_app.demo.lexicon import made_up_hanzi, made_up_word
from serve_app.demo.phrasebook import Language, phrasebook

_PHRASES = phrasebook("manners")
# Where a word may go: between two characters, or at a space; never within a hole's braces.
_GAPS = {"zh": r"(?<=[^{])(?=[^}\s])(?!\w\})(?!$)", "en": r" (?! )"}


def called(draw: Draw, language: Language, sentence: str) -> str:
    """The sentence, at times with words before it."""
    if not draw.chance(0.3):
        return sentence
    return _named(draw, language, draw.choice(_PHRASES[language]["openers"])) + sentence


def asked(draw: Draw, language: Language, question: str) -> str:
    """The question, at times with words before it, after it, or both."""
    if draw.chance(0.25):
        closer = _named(draw, language, draw.choice(_PHRASES[language]["closers"]))
        question = question.rstrip(_PHRASES[language]["ends"]) + closer
    return called(draw, language, question)


def rough(draw: Draw, language: Language, template: str, beside: bool = False) -> str:
    """The template, at times with one more word in it.

    Only with `beside` may the word stand next to a hole, where what fills it is told from words.
    """
    places = [
        place.start()
        for place in re.finditer(_GAPS[language], template)
        if beside or not _is_beside_hole(template, place.start())
    ]
    if not places or not draw.chance(0.35):
        return template
    place = draw.choice(places)
    word = draw.phrase(_PHRASES[language]["words"])
    if draw.chance(0.5):
        word = _named(draw, language, "{n}")
    joint = "" if language == "zh" else " "
    return template[:place] + joint + word + template[place:]


def _is_beside_hole(template: str, place: int) -> bool:
    """Whether nothing but marks lies between the place and a hole."""
    return bool(re.search(r"\}\W*$", template[:place]) or re.match(r"\W*\{", template[place:]))


def _named(draw: Draw, language: Language, phrase: str) -> str:
    name = made_up_hanzi(draw, 1, 3) if language == "zh" else made_up_word(draw)
    return phrase.format(n=name)
