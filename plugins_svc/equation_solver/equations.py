"""Parses equations as MOSS writes them into sympy expressions, with our own tokenizer and parser.

The text never reaches sympify, parse_expr, lambdify or eval; it is only turned into numbers and
Symbols with plain names. Runs inside the solver's limited worker process.
"""

import re

import sympy  # type: ignore[import-untyped]

from plugins_svc.equation_solver.algebra import EquationError, Value, call, combine, raise_to
from plugins_svc.expressions.arithmetic import (
    CONSTANTS,
    FUNCTION_NAMES,
    MAX_CHARS,
    MAX_DEPTH,
    checked,
)
from plugins_svc.expressions.lexer import tokens_of

MAX_TOKENS = 400

_TOKEN = re.compile(
    r"\s+|(?:\d+\.?\d*|\.\d+)(?:[eE]-?\d+)?|[A-Za-z][A-Za-z0-9_]*|\*\*|[-+*/^()]", re.ASCII
)


def parse_equations(text: str) -> list[Value]:
    """`left - right` of every piece of `text` with an `=`; `;` and `,` separate pieces.

    Raises EquationError, or ArithmeticRefusedError for an unexpected character and for numbers
    that cannot be computed.
    """
    if len(text) > MAX_CHARS:
        raise EquationError("text too long")
    pieces = [piece.split("=") for piece in re.split("[;,]", text) if "=" in piece]
    if any(len(sides) != 2 for sides in pieces):
        raise EquationError("more than one = in an equation")
    return [combine("-", Side(left).parse(), Side(right).parse()) for left, right in pieces]


class Side:
    """A recursive-descent parser for one side of an equation.

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
        """The value of the whole side."""
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
