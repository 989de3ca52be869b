"""Conditions on the unknowns, such as `x>0` beside `x^2=4`: which solutions fulfil them.

A condition is decided or the text has no answer; it is never left out.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sympy  # type: ignore[import-untyped]

from plugins_svc.equation_solver.algebra import EquationError, Value, combine

DIGITS = 15
_NEARLY_ZERO = 1e-9
RELATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
}

Solution = Mapping[sympy.Symbol, sympy.Expr]


@dataclass(frozen=True)
class Condition:
    """`left` stands in `relation` (a key of RELATIONS) to `right`."""

    left: Value
    relation: str
    right: Value

    def holds(self, solution: Solution) -> bool:
        """Whether `solution` fulfils it; a complex value is neither less nor greater.

        EquationError if that cannot be decided, or depends on something else than the unknowns.
        """
        relation = RELATIONS[self.relation]
        difference = combine("-", self.left, self.right)
        if not isinstance(difference, sympy.Expr):
            return relation(difference, 0)
        difference = difference.subs(solution)
        if not difference.is_number:
            raise EquationError("a condition on something unknown")
        value = complex(difference.evalf(DIGITS))
        if abs(value) < _NEARLY_ZERO:
            if not (difference.is_zero or difference == 0):
                raise EquationError("a condition that cannot be decided")
            return relation(0, 0)
        if abs(value.imag) < _NEARLY_ZERO:
            return relation(value.real, 0)
        return self.relation == "!="
