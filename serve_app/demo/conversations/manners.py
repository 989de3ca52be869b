"""The words around and within a request: a name, a thank-you, or something that means nothing.

A model of this size takes a phrasing it has never met for something else; having passed over any
word before, within and after a request, it finds the request in new ones too.
"""

import re

from serve_app.demo.conversations.draw import Draw
from serve_app.demo.conversations.lexicon import made_up_hanzi, made_up_word
from serve_app.demo.conversations.phrasebook import Language, phrasebook

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
    """The template, at times with a few more words in it.

    Only with `beside` may any word stand next to a hole, where what fills it is told from words;
    else only a known one, before the hole.
    """
    if not draw.chance(0.45):
        return template
    for _ in range(draw.weighted({1: 60, 2: 30, 3: 10})):
        template = _with_word(draw, language, template, beside)
    return template


def _with_word(draw: Draw, language: Language, template: str, beside: bool) -> str:
    places = [place.start() for place in re.finditer(_GAPS[language], template)]
    if not beside:
        places = [place for place in places if not _is_after_hole(template, place)]
    if not places:
        return template
    place = draw.choice(places)
    word = draw.phrase(_PHRASES[language]["words"])
    if draw.chance(0.5) and (beside or not _is_before_hole(template, place)):
        word = _named(draw, language, "{n}")
    joint = "" if language == "zh" else " "
    return template[:place] + joint + word + template[place:]


def _is_after_hole(template: str, place: int) -> bool:
    """Whether nothing but marks lies between the hole and the place."""
    return bool(re.search(r"\}\W*$", template[:place]))


def _is_before_hole(template: str, place: int) -> bool:
    """Whether nothing but marks lies between the place and the hole."""
    return bool(re.match(r"\W*\{", template[place:]))


def _named(draw: Draw, language: Language, phrase: str) -> str:
    name = made_up_hanzi(draw, 1, 3) if language == "zh" else made_up_word(draw)
    return phrase.format(n=name)
