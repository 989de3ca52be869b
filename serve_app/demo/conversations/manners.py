"""Words around and within a request: a name, a thank-you, or something without a meaning.

A model of this size misreads a phrasing that it has not seen. Trained with arbitrary words before,
within and after requests, it learns to ignore them and finds the request in new phrasings too.
"""

import re

from serve_app.demo.conversations.draw import Draw
from serve_app.demo.conversations.lexicon import made_up_hanzi, made_up_word
from serve_app.demo.conversations.phrasebook import Language, phrasebook

_PHRASES = phrasebook("manners")
# Where a word may be inserted: between two characters (zh) or at a space (en), but never within
# the braces of a placeholder.
_GAPS = {"zh": r"(?<=[^{])(?=[^}\s])(?!\w\})(?!$)", "en": r" (?! )"}


def with_opener(draw: Draw, language: Language, sentence: str) -> str:
    """The sentence, sometimes with words before it."""
    if not draw.chance(0.3):
        return sentence
    return _named(draw, language, draw.choice(_PHRASES[language]["openers"])) + sentence


def with_opener_and_closer(draw: Draw, language: Language, question: str) -> str:
    """The question, sometimes with words before it, after it, or both."""
    if draw.chance(0.25):
        closer = _named(draw, language, draw.choice(_PHRASES[language]["closers"]))
        question = question.rstrip(_PHRASES[language]["ends"]) + closer
    return with_opener(draw, language, question)


def with_extra_words(
    draw: Draw, language: Language, template: str, near_placeholder: bool = False
) -> str:
    """The template, sometimes with a few more words in it.

    `near_placeholder` allows any word next to a placeholder; use it if the placeholder's value
    cannot be taken for a word. Without it only a known word may stand next to one, before it.
    """
    if not draw.chance(0.45):
        return template
    for _ in range(draw.weighted({1: 60, 2: 30, 3: 10})):
        template = _with_word(draw, language, template, near_placeholder)
    return template


def _with_word(draw: Draw, language: Language, template: str, near_placeholder: bool) -> str:
    places = [place.start() for place in re.finditer(_GAPS[language], template)]
    if not near_placeholder:
        places = [place for place in places if not _is_after_placeholder(template, place)]
    if not places:
        return template
    place = draw.choice(places)
    word = draw.phrase(_PHRASES[language]["words"])
    if draw.chance(0.5) and (near_placeholder or not _is_before_placeholder(template, place)):
        word = _named(draw, language, "{n}")
    joint = "" if language == "zh" else " "
    return template[:place] + joint + word + template[place:]


def _is_after_placeholder(template: str, place: int) -> bool:
    """Whether only punctuation lies between a placeholder and the place after it."""
    return bool(re.search(r"\}\W*$", template[:place]))


def _is_before_placeholder(template: str, place: int) -> bool:
    """Whether only punctuation lies between the place and a placeholder after it."""
    return bool(re.match(r"\W*\{", template[place:]))


def _named(draw: Draw, language: Language, phrase: str) -> str:
    name = made_up_hanzi(draw, 1, 3) if language == "zh" else made_up_word(draw)
    return phrase.format(n=name)
