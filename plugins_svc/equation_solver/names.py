"""Names that could mean something else than an unknown: they are refused, not guessed.

`sinx` may be the sine of x, `xy` a product, `f(2)` the value of a function.
"""

import re
from collections.abc import Collection

from plugins_svc.equation_solver.algebra import EquationError
from plugins_svc.expressions.arithmetic import FUNCTION_NAMES

# A function or pi with its argument run together: sinx, log2, pir.
_RUN_TOGETHER = re.compile(rf"(?:{'|'.join(sorted(FUNCTION_NAMES))}|pi)(?:[A-Za-z]|_?\d+)?")
# Names that may be multiplied by a parenthesis: x(x+1), but neither f(2) nor speed(2).
_FACTOR = re.compile(r"(?![fghFGH](?!\w))[A-Za-z](?:_?\d+)?")


_TIMES = re.compile(r"\d[xX]\d")
_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+")
_EXPONENT = re.compile(r"\d\.?([eE])[-+]?\d+(\.?\d*\s*[A-Za-z(])?")
_MAX_PRODUCT = 4  # a longer name is a word


def check_text(text: str) -> None:
    """EquationError where an x may be a multiplication sign, as in `2x3`, or an e an unknown.

    `2e+3f=12` is such a text, and so is one in which an e stands elsewhere.
    """
    if found := _TIMES.search(text):
        raise EquationError(f"{found[0]} may be a product")
    elsewhere = _NUMBER.sub("", text)
    for found in _EXPONENT.finditer(text):
        if found[2] or re.search(rf"(?<![A-Za-z_]){found[1]}(?![A-Za-z])", elsewhere):
            raise EquationError(f"{found[0]} may be a sum")


def check_name(name: str, *, is_before_parenthesis: bool) -> None:
    """EquationError for a `name` that may be a function."""
    if _RUN_TOGETHER.fullmatch(name):
        raise EquationError(f"{name} may be a function of something")
    if is_before_parenthesis and not _FACTOR.fullmatch(name):
        raise EquationError(f"{name} may be a function")


def check_names(names: Collection[str]) -> None:
    """EquationError if one of the unknowns may be a product of others."""
    for name in names:
        is_product = 1 < len(name) <= _MAX_PRODUCT and name.isalpha()
        if is_product and (name.islower() or name.isupper()):
            letters = set(name)
            if letters & set(names) or letters <= set("xyz") or letters <= set("XYZ"):
                raise EquationError(f"{name} may be a product")
