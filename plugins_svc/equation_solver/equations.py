"""Equations as MOSS writes them: from text to sympy objects by an own tokenizer and parser.

The text never reaches sympify, parse_expr, lambdify or eval; only numbers and Symbols with plain
names are ever built from it. Two numbers are combined as the calculator does (`160/3` is a
float), anything with an unknown stays exact. Runs inside the solver's limited worker process.
"""

import operator
import re
from collections.abc import Callable
from typing import Any, TypeAlias

import sympy  # type: ignore[import-untyped]

from plugins_svc.expressions.arithmetic import (
    CONSTANTS,
    FUNCTION_NAMES,
    MAX_CHARS,
    MAX_DEPTH,
    Number,
    apply,
    checked,
)
from plugins_svc.expressions.lexer import tokens_of

MAX_TOKENS = 400
MAX_EXPONENT = 12

Value: TypeAlias = Number | sympy.Expr

_TOKEN = re.compile(
    r"\s+|(?:\d+\.?\d*|\.\d+)(?:[eE]-?\d+)?|[A-Za-z][A-Za-z0-9_]*|\*\*|[-+*/^()]", re.ASCII
)
_OPERATORS: dict[str, Callable[[Any, Any], sympy.Expr]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_FUNCTIONS: dict[str, Callable[[sympy.Expr], sympy.Expr]] = {
    "sqrt": sympy.sqrt,
    "sin": sympy.sin,
    "cos": sympy.cos,
    "tan": sympy.tan,
    "asin": sympy.asin,
    "acos": sympy.acos,
    "atan": sympy.atan,
    "log": sympy.log,
    "ln": sympy.log,
    "exp": sympy.exp,
    "abs": sympy.Abs,
}


class EquationError(ValueError):
    """Not an equation, or over a limit."""


def parse_equations(text: str) -> list[Value]:
    """`left - right` of every piece that has an `=`; pieces are separated by `;` or `,`.

    Raises EquationError, or ArithmeticRefusedError for characters that are in no equation and
    numbers that cannot be computed.
    """
    if len(text) > MAX_CHARS:
        raise EquationError("text too long")
    pieces = [piece.split("=") for piece in re.split("[;,]", text) if "=" in piece]
    if any(len(sides) != 2 for sides in pieces):
        raise EquationError("one = an equation")
    return [combine("-", Side(left).parse(), Side(right).parse()) for left, right in pieces]


class Side:
    """Recursive descent over one side of an equation.

    sum := product (("+" | "-") product)*      product := factor (("*" | "/")? factor)*
    factor := ("+" | "-")* power               power := atom (("^" | "**") factor)?
    """

    def __init__(self, text: str) -> None:
        self._tokens = tokens_of(text, _TOKEN)
        if len(self._tokens) > MAX_TOKENS:
            raise EquationError("too complex")
        self._position = 0
        self._depth = 0

    def parse(self) -> Value:
        """Value of the whole side."""
        value = self._sum()
        if self._peek():
            raise EquationError(f"unexpected {self._peek()!r}")
        return value

    def _peek(self) -> str:
        return self._tokens[self._position] if self._position < len(self._tokens) else ""

    def _accept(self, *tokens: str) -> str:
        token = self._peek()
        if token not in tokens:
            return ""
        self._position += 1
        return token

    def _sum(self) -> Value:
        value = self._product()
        while sign := self._accept("+", "-"):
            value = combine(sign, value, self._product())
        return value

    def _product(self) -> Value:
        value = self._factor()
        while sign := self._accept("*", "/") or ("*" if self._starts_operand() else ""):
            value = combine(sign, value, self._factor())
        return value

    def _starts_operand(self) -> bool:
        """Whether multiplication is implied here, as in `2x` or `3(x+1)`."""
        return self._peek() == "(" or self._peek()[:1].isalpha()

    def _factor(self) -> Value:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise EquationError("too deep")
        if sign := self._accept("+", "-"):
            value = combine(sign, 0, self._factor())
        else:
            value = self._atom()
            if self._accept("^", "**"):
                value = raise_to(value, self._factor())
        self._depth -= 1
        return value

    def _atom(self) -> Value:
        if self._accept("("):
            return self._closing(self._sum())
        token = self._peek()
        self._position += 1
        if token[:1].isdigit() or token[:1] == ".":
            return checked(int(token) if token.isdigit() else float(token))
        if token in FUNCTION_NAMES and self._accept("("):
            return call(token, self._closing(self._sum()))
        if token == "pi":
            return CONSTANTS["pi"]
        if not token[:1].isalpha():
            raise EquationError(f"unexpected {token!r}")
        return sympy.Symbol(token)

    def _closing(self, value: Value) -> Value:
        if not self._accept(")"):
            raise EquationError("missing )")
        return value


def combine(sign: str, left: Value, right: Value) -> Value:
    """left + - * / right: exact as soon as an unknown is involved."""
    if isinstance(left, sympy.Expr) or isinstance(right, sympy.Expr):
        return _bounded(_OPERATORS[sign](left, right))
    return apply(sign, left, right)


def raise_to(base: Value, exponent: Value) -> Value:
    """base ** exponent; what is not all numbers is raised to at most MAX_EXPONENT."""
    if not isinstance(base, sympy.Expr) and not isinstance(exponent, sympy.Expr):
        return apply("**", base, exponent)
    _check_exponent(exponent)
    return _bounded(operator.pow(base, exponent))


def call(name: str, argument: Value) -> Value:
    """A function of a number is a float; of an unknown, exact, where sympy has it."""
    if not isinstance(argument, sympy.Expr):
        return apply(name, argument)
    if name not in _FUNCTIONS:
        raise EquationError(f"{name} of an unknown")
    return _bounded(_FUNCTIONS[name](argument))


def _check_exponent(exponent: Value) -> None:
    is_number = not isinstance(exponent, sympy.Expr) or exponent.is_number
    if is_number and abs(exponent) > MAX_EXPONENT:
        raise EquationError("exponent too large")


def _bounded(value: sympy.Expr) -> sympy.Expr:
    """`value` within every limit, also on what sympy made of it (`(x^12)^12` is `x^144`)."""
    if value.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo):
        raise EquationError("not finite")
    for power in value.atoms(sympy.Pow):
        _check_exponent(power.exp)
    if value.is_Rational:
        checked(int(value.p))
        checked(int(value.q))
    return value
