"""Bounded arithmetic on numbers and sympy expressions, for the parser of equations.

Two numbers are combined as the calculator does (`160/3` is a float); with an unknown, the result
is exact. Every value that sympy returns is checked against the limits.
"""

import operator
from collections.abc import Callable
from typing import Any, TypeAlias

import sympy  # type: ignore[import-untyped]

from plugins_svc.expressions.arithmetic import (
    ArithmeticRefusedError,
    Number,
    apply,
    checked,
)

MAX_EXPONENT = 12

Value: TypeAlias = Number | sympy.Expr

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


class EquationError(ArithmeticRefusedError):
    """The text is not an equation, or exceeds a limit."""


def combine(sign: str, left: Value, right: Value) -> Value:
    """left + - * / right."""
    if isinstance(left, sympy.Expr) or isinstance(right, sympy.Expr):
        return _bounded(_OPERATORS[sign](left, right))
    return apply(sign, left, right)


def raise_to(base: Value, exponent: Value) -> Value:
    """base ** exponent. With an unknown, the exponent is at most MAX_EXPONENT."""
    if not isinstance(base, sympy.Expr) and not isinstance(exponent, sympy.Expr):
        return apply("**", base, exponent)
    _check_exponent(exponent)
    return _bounded(operator.pow(base, exponent))


def call(name: str, argument: Value) -> Value:
    """The value of a function: of a number as the calculator has it, of an expression exact."""
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
    """`value`, checked as sympy simplified it: `(x^12)^12` has become `x^144`."""
    if value.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo):
        raise EquationError("not finite")
    for power in value.atoms(sympy.Pow):
        _check_exponent(power.exp)
    if value.is_Rational:
        checked(int(value.p))
        checked(int(value.q))
    return value
