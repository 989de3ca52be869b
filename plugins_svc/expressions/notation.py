"""How numbers and operators are written: full-width, typographic, and with thousands separators.

It changes text to the plain notation that the parsers read; what it does not know stays, and they
refuse it. A comma may separate thousands or list entries, so a text may have several readings.
"""

import re
from collections.abc import Callable, Iterator
from itertools import product
from typing import TypeVar

from plugins_svc.expressions.arithmetic import ArithmeticRefusedError

T = TypeVar("T")

_FULL_WIDTH = {0xFEE0 + code: code for code in range(0x21, 0x7F)} | {0x3000: " "}
_TYPOGRAPHIC = {
    **{"×": "*", "✕": "*", "∗": "*", "÷": "/", "−": "-", "﹣": "-", "﹢": "+"},
    **{"、": ",", "≤": "<=", "≥": ">=", "⩽": "<=", "⩾": ">=", "≠": "!=", "π": " pi "},
}
_PLAIN = _FULL_WIDTH | {ord(character): plain for character, plain in _TYPOGRAPHIC.items()}
# A single superscript; two of them would be the exponent 23.
_SUPERSCRIPT = re.compile(r"(?<=[\w)])(?<![⁰¹²³⁴-⁹⁺⁻])[²³](?![⁰¹²³⁴-⁹])")
MAX_COMMAS = 6  # that may be inside numbers; each doubles the number of readings
_COMMA = re.compile(r"(?<=\d),(?=\d{3}(?!\d))", re.ASCII)
_JOINT = "\0"  # stands for a comma that is read as part of a number
_JOINED = re.compile(rf"[\w.]*(?:{_JOINT}[\w.]*)+", re.ASCII)
_NUMBER = re.compile(rf"[1-9]\d{{0,2}}(?:{_JOINT}\d{{3}})+(?!\d).*", re.ASCII)
_TIGHT, _SPACED = re.compile(r"\d,\d", re.ASCII), re.compile(r"\d,\s")


def plain_notation(text: str) -> str:
    """`text` with full-width and typographic characters replaced by their plain forms."""
    text = text.translate(_PLAIN)
    return _SUPERSCRIPT.sub(lambda match: f"^{'2' if match[0] == '²' else '3'} ", text)


def answer_of(text: str, answer: Callable[[str], T]) -> T:
    """What `answer` returns for the readings of `text` that it does not refuse.

    In `1,500` the comma is part of the number in one reading and separates two in the other.
    ArithmeticRefusedError if no reading has an answer, or several have different ones.
    """
    answers: list[T] = []
    refusal = ArithmeticRefusedError("no reading")
    for reading in _readings(plain_notation(text)):
        try:
            found = answer(reading)
        except ArithmeticRefusedError as error:
            refusal = error
        else:
            answers += [found] if found not in answers else []
    if not answers:
        raise refusal
    if len(answers) > 1:
        raise ArithmeticRefusedError("a comma can be read in two ways")
    return answers[0]


def _readings(text: str) -> Iterator[str]:
    """`text` with each comma that may separate thousands either left out or left in.

    A comma that is left in separates. Beside `1, 2` the comma of `3,5` must be something else.
    """
    places = [match.start() for match in _COMMA.finditer(text)]
    if len(places) > MAX_COMMAS or _JOINT in text:
        raise ArithmeticRefusedError("too many readings")
    for choice in product((_JOINT, ","), repeat=len(places)):
        characters = list(text)
        for place, character in zip(places, choice, strict=True):
            characters[place] = character
        reading = "".join(characters)
        is_mixed = _TIGHT.search(reading) and _SPACED.search(reading)
        if not is_mixed and all(map(_NUMBER.fullmatch, _JOINED.findall(reading))):
            yield reading.replace(_JOINT, "")
