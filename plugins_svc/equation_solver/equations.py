"""Parses equations as MOSS writes them into sympy expressions, with our own tokenizer and parser.

The text never reaches sympify, parse_expr, lambdify or eval; it is only turned into numbers and
Symbols with plain names. What is not understood is refused: only the bare name of an unknown is
left out, as in `2t+7t=1, t`. Runs inside the solver's limited worker process.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

import sympy  # type: ignore[import-untyped]

from plugins_svc.equation_solver.algebra import EquationError, Value, call, combine, raise_to
from plugins_svc.equation_solver.conditions import RELATIONS, Condition
from plugins_svc.equation_solver.names import check_name, check_names, check_text
from plugins_svc.expressions.arithmetic import (
    CONSTANTS,
    FUNCTION_NAMES,
    MAX_CHARS,
    MAX_DEPTH,
    checked,
)
from plugins_svc.expressions.lexer import tokens_of

MAX_TOKENS = 400

_NAME = re.compile("[A-Za-z][A-Za-z0-9_]*", re.ASCII)
_TOKEN = re.compile(
    rf"\s+|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|{_NAME.pattern}|\*\*|[-+*/^()]", re.ASCII
)
_RELATION = re.compile(f"({'|'.join(sorted(RELATIONS, key=len, reverse=True))}|=)")


@dataclass(frozen=True)
class Equations:
    """`differences` are `left - right` of each equation; every solution must fulfil `conditions`,
    among them that nothing is divided by zero."""

    differences: tuple[Value, ...]
    conditions: tuple[Condition, ...]

    @property
    def unknowns(self) -> list[sympy.Symbol]:
        """The unknowns of the equations, sorted by name."""
        found = {s for d in self.differences if isinstance(d, sympy.Expr) for s in d.free_symbols}
        return sorted(found, key=str)


def parse_equations(text: str) -> Equations:
    """The equations and conditions of `text`, in plain notation; `;` and `,` separate them.

    Raises EquationError, or ArithmeticRefusedError for an unexpected character and for numbers
    that cannot be computed.
    """
    if len(text) > MAX_CHARS:
        raise EquationError("text too long")
    check_text(text)
    differences: list[Value] = []
    conditions: list[Condition] = []
    bare: list[str] = []
    for piece in filter(None, map(str.strip, re.split("[;,]", text))):
        first, *rest = _RELATION.split(piece)
        if not rest:
            bare.append(first)
            continue
        sides = [Side(side) for side in (first, *rest[1::2])]
        values = [side.parse() for side in sides]
        conditions += [Condition(d, "!=", 0) for side in sides for d in side.denominators]
        if rest[::2] == ["="]:
            differences.append(combine("-", *values))
        else:
            conditions += _chain(values, rest[::2])
    parsed = Equations(tuple(differences), tuple(conditions))
    _check_names(parsed, bare)
    return parsed


def _chain(values: list[Value], relations: list[str]) -> list[Condition]:
    """The conditions of `0<x<5`."""
    if "=" in relations:
        raise EquationError("a condition and an equation in one")
    pairs = zip(pairwise(values), relations, strict=True)
    return [Condition(left, relation, right) for (left, right), relation in pairs]


def _check_names(parsed: Equations, bare: list[str]) -> None:
    """Whether each of the pieces `bare` names an unknown: a word may be a unit or a condition."""
    names = set(map(str, parsed.unknowns))
    check_names(names)
    if unread := [piece for piece in bare if piece not in names]:
        raise EquationError(f"neither an equation nor an unknown: {unread[0]!r}")


class Side:
    """A recursive-descent parser for one side of an equation.

    sum := product (("+" | "-") product)*      product := factor (("*" | "/")? factor)*
    factor := ("+" | "-")* power               power := atom (("^" | "**") factor)?

    `denominators` are the expressions with unknowns that it divided by.
    """

    def __init__(self, text: str) -> None:
        self._tokens = tokens_of(text, _TOKEN)
        if len(self._tokens) > MAX_TOKENS:
            raise EquationError("too complex")
        self._position = 0
        self._depth = 0
        self.denominators: list[sympy.Expr] = []

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
            factor = self._factor()
            if sign == "/" and isinstance(factor, sympy.Expr):
                self.denominators.append(factor)
            value = combine(sign, value, factor)
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
        check_name(token, is_before_parenthesis=self._peek() == "(")
        return sympy.Symbol(token)

    def _closing(self, value: Value) -> Value:
        if not self._accept(")"):
            raise EquationError("missing )")
        return value
