"""Turns in which the user asks for a sum, in Chinese or English.

With the calculator on, the model copies the expression into `Calculate("…")` and the value into
its reply; with it off, the reply says that it is off.
"""

import asyncio
from dataclasses import dataclass

from plugins_svc.calculator.plugin import Calculator
from plugins_svc.protocol.calls import Call
from serve_app.demo.conversations.demo_turn import DemoTurn
from serve_app.demo.conversations.draw import Draw
from serve_app.demo.conversations.manners import with_extra_words, with_opener_and_closer
from serve_app.demo.conversations.phrasebook import Language, phrasebook

# The names of the operators in the phrase tables.
OPERATORS = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}
# Long fractions are the hardest to copy, and in differences and quotients the order matters.
_SHARES = {"+": 2, "-": 3, "*": 2, "/": 3}
_PHRASES = phrasebook("arithmetic")


@dataclass(frozen=True)
class Expression:
    """Two numbers and an operator."""

    operator: str
    a: str
    b: str

    def __str__(self) -> str:
        return f"{self.a}{self.operator}{self.b}"


@dataclass(frozen=True)
class Sum:
    """An expression in the user's words and in the calculator's notation."""

    question: str
    expression: str


def calculator_turn(draw: Draw, language: Language, is_enabled: bool) -> DemoTurn:
    """The user asks for a sum; the reply has its value, or says that the calculator is off."""
    phrases, problem = _PHRASES[language], _problem(draw, language)
    thoughts = phrases["thoughts"]["enabled" if is_enabled else "disabled"]
    if not is_enabled:
        return DemoTurn(problem.question, thoughts, draw.choice(phrases["refusals"]))
    output = asyncio.run(Calculator().run(problem.expression))
    reply = phrases["no_value"]
    if output.ok:
        template = draw.choice(phrases["answers"])
        reply = template.format(x=problem.expression, v=output.lines[0])
    call = Call("Calculate", problem.expression)
    return DemoTurn(problem.question, thoughts, reply, ((call, output),))


def phrasing(draw: Draw, language: Language, operator: str) -> str:
    """`{a} op {b}` in symbols, in words or as a noun, with the placeholders unfilled."""
    # Training has more nouns, which are the hardest to tell apart.
    style, name = draw.integer(0, 9 if draw.held_out else 11), OPERATORS[operator]
    if style < 5:
        space, symbol = draw.choice(("", "", " ")), draw.choice(_PHRASES["symbols"][name])
        return f"{{a}}{space}{symbol}{space}{{b}}"
    if style < 8:
        return f"{{a}}{draw.choice(_PHRASES[language]['words'][name])}{{b}}"
    noun: str = draw.choice(_PHRASES[language]["nouns"][name])
    return noun


def _problem(draw: Draw, language: Language) -> Sum:
    """A sum whose expression is held out if and only if `draw` is."""
    style = draw.integer(0, 99)
    if style < 8:
        return _chain(draw, language)
    expression, phrases = _two_numbers(draw), _PHRASES[language]
    name = OPERATORS[expression.operator]
    if style < 26:
        template = draw.choice(phrases["orders"][name])
    elif style < 31:
        template = draw.choice(phrases["stories"][name])
    else:
        template = with_extra_words(
            draw, language, draw.choice(phrases["frames"]), near_placeholder=True
        )
        template = template.format(e=phrasing(draw, language, expression.operator))
    question = template.format(a=expression.a, b=expression.b)
    return Sum(with_opener_and_closer(draw, language, question), str(expression))


def _two_numbers(draw: Draw) -> Expression:
    """An operator and two numbers, mostly of 1 to 4 digits."""
    return draw.fresh(lambda: Expression(draw.weighted(_SHARES), _number(draw), _number(draw)))


def _chain(draw: Draw, language: Language) -> Sum:
    """Three numbers and two operators."""
    shape = draw.choice(("{}{}{}{}{}", "({}{}{}){}{}", "{}{}({}{}{})"))

    def make() -> str:
        parts = [
            _number(draw),
            draw.choice(tuple(OPERATORS)),
            _number(draw),
            draw.choice(tuple(OPERATORS)),
        ]
        return shape.format(*parts, _number(draw))

    expression = draw.fresh(make)
    frame = draw.choice(_PHRASES[language]["frames"])
    return Sum(with_opener_and_closer(draw, language, frame.format(e=expression)), expression)


def _number(draw: Draw) -> str:
    digits = draw.weighted({1: 20, 2: 26, 3: 26, 4: 24, 5: 2, 6: 2})
    low = 0 if digits == 1 else 10 ** (digits - 1)
    whole = draw.integer(low, 10**digits - 1)
    return f"{whole}.{draw.integer(1, 99)}" if draw.chance(0.03) else str(whole)
