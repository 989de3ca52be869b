"""The questions of `moss demo-eval`, with held-out numbers, names and phrasings, and their grading.

It does not run a model.
"""

import math
import re
from dataclasses import dataclass
from typing import Literal

from plugins_svc.calculator.evaluator import evaluate
from serve_app.demo.conversations.arithmetic import OPERATORS, Expression, phrasing
from serve_app.demo.conversations.draw import Draw
from serve_app.demo.conversations.lookups import picture_of, topic_of
from serve_app.demo.conversations.memory import value_of
from serve_app.demo.conversations.phrasebook import LANGUAGES, Language, phrasebook
from serve_app.prompt.exchange import Exchange

_PHRASES = phrasebook("held_out")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_ORDERS_SHARE = 0.15


@dataclass(frozen=True)
class Question:
    """The user's message of each turn; the answer to the last one must match `expected`."""

    users: tuple[str, ...]
    expected: str
    kind: Literal["number", "fact", "command"]

    def is_answered_by(self, turn: Exchange) -> bool:
        """A number must be the last one in the reply, a fact must occur in the reply, and a command
        must be the only one of the turn."""
        if self.kind == "command":
            return turn.commands == self.expected
        if self.kind == "fact":
            return self.expected in turn.reply
        numbers = _NUMBER.findall(turn.reply)
        return bool(numbers) and math.isclose(
            float(numbers[-1]), float(self.expected), rel_tol=1e-9, abs_tol=1e-12
        )


def arithmetic_questions(count: int, seed: int) -> list[Question]:
    """Sums of two held-out numbers of 1 to 4 digits in held-out phrasings, both languages."""
    draw = Draw(f"arithmetic/{seed}", held_out=True)
    return [_sum(draw, LANGUAGES[number % 2]) for number in range(count)]


def memory_questions(count: int, seed: int) -> list[Question]:
    """Chats that tell a fact, talk about something else, and ask for the fact two turns later."""
    draw = Draw(f"memory/{seed}", held_out=True)
    return [_recall(draw, LANGUAGES[number % 2]) for number in range(count)]


def lookup_questions(count: int, seed: int) -> list[Question]:
    """Held-out things to search for or to draw, in held-out phrasings."""
    draw = Draw(f"lookup/{seed}", held_out=True)
    return [_lookup(draw, LANGUAGES[number % 2]) for number in range(count)]


def _sum(draw: Draw, language: Language) -> Question:
    expression = draw.fresh(lambda: _expression(draw))
    if draw.chance(_ORDERS_SHARE):
        template = draw.choice(_PHRASES[language]["orders"][OPERATORS[expression.operator]])
    else:
        frame = draw.choice(_PHRASES[language]["frames"])
        template = frame.format(e=phrasing(draw, language, expression.operator))
    user = template.format(a=expression.a, b=expression.b)
    return Question((user,), str(evaluate(str(expression))), "number")


def _expression(draw: Draw) -> Expression:
    return Expression(draw.choice(tuple(OPERATORS)), _number(draw), _number(draw))


def _number(draw: Draw) -> str:
    digits = draw.integer(1, 4)
    return str(draw.integer(10 ** (digits - 1), 10**digits - 1))


def _recall(draw: Draw, language: Language) -> Question:
    kind = "name" if draw.chance(0.4) else draw.choice(tuple(_PHRASES[language]["tells"]))
    value = value_of(draw, language, kind)
    users = (
        draw.choice(_PHRASES[language]["tells"][kind]).format(v=value),
        draw.choice(_PHRASES[language]["fillers"]),
        draw.choice(_PHRASES[language]["asks"][kind]),
    )
    return Question(users, value, "fact")


def _lookup(draw: Draw, language: Language) -> Question:
    asks = _PHRASES[language]["lookups"]
    if draw.chance(0.5):
        topic = topic_of(draw, language)
        user, expected = draw.choice(asks["search"]).format(t=topic), f'Search("{topic}")'
    else:
        picture = picture_of(draw, language)
        user, expected = draw.choice(asks["picture"]).format(d=picture), f'Text2Image("{picture}")'
    return Question((user,), expected, "command")
