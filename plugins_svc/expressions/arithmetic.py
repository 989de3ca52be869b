"""Bounded arithmetic on numbers, shared by the calculator and the equation solver.

Values are integers of at most MAX_BITS bits and finite floats. The size of a power is checked
before it is computed. Every failure raises ArithmeticRefusedError.
"""

import math
import operator
from collections.abc import Callable
from typing import Any

Number = int | float

MAX_BITS = 4096
MAX_CHARS = 1000  # of an expression or of equations
MAX_DEPTH = 60
CONSTANTS: dict[str, Number] = {"pi": math.pi, "e": math.e}


class ArithmeticRefusedError(ValueError):
    """The text is not arithmetic, exceeds a limit, or has no finite real value."""


def _power(base: Number, exponent: Number) -> Number | complex:
    are_ints = isinstance(base, int) and isinstance(exponent, int)
    if are_ints and int(base).bit_length() * abs(int(exponent)) > MAX_BITS:
        raise ArithmeticRefusedError("power too large")
    value: Number | complex = base**exponent
    return value


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "**": _power,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sqrt": math.sqrt,
    "pow": _power,
    "ceil": math.ceil,
    "floor": math.floor,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "asin": math.asin,
    "acos": math.acos,
    "atan": math.atan,
    "log": math.log,
    "ln": math.log,
    "exp": math.exp,
    "max": max,
    "min": min,
    "abs": abs,
}
FUNCTION_NAMES = frozenset(_FUNCTIONS)


def checked(value: Any) -> Number:
    """`value`, if it is an int of allowed size or a finite float; ArithmeticRefusedError if not."""
    if type(value) is int and value.bit_length() <= MAX_BITS:
        return value
    if type(value) is float and math.isfinite(value):
        return value
    raise ArithmeticRefusedError("not a finite real number of allowed size")


def apply(name: str, *operands: Number) -> Number:
    """The value of the operator or function `name`. Angles are in radians.

    ArithmeticRefusedError when there is no such name or no allowed value.
    """
    function = _FUNCTIONS.get(name) or _OPERATORS.get(name)
    if function is None:
        raise ArithmeticRefusedError(f"no operator or function {name!r}")
    try:
        return checked(function(*operands))
    except (ArithmeticError, TypeError, ValueError) as error:
        raise ArithmeticRefusedError(str(error)) from error
