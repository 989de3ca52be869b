"""The words around a request: a name, a greeting, a thank-you, or something that means nothing.

A model of this size takes a phrasing it has never met for something else; having passed over any
word before and after a request, it finds the request in new ones too.
"""

from serve_app.demo.draw import Draw
from serve_app.demo.lexicon import made_up_hanzi, made_up_word
from serve_app.demo.phrasebook import Language, phrasebook

_PHRASES = phrasebook("manners")


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


def _named(draw: Draw, language: Language, phrase: str) -> str:
    name = made_up_hanzi(draw, 1, 3) if language == "zh" else made_up_word(draw)
    return phrase.format(n=name)
