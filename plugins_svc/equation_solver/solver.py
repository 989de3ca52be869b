"""Solves one equation for its roots, or a system for its unique solution, as lines for MOSS.

One root reads `x = 26`, several read `x_0 = …`. A system needs exactly one solution; its unknowns
are sorted by name. Only solutions that fulfil the text's conditions count. Runs inside the solver's
limited worker process.
"""

import cmath
from collections.abc import Sequence

import sympy  # type: ignore[import-untyped]

from plugins_svc.equation_solver.algebra import EquationError
from plugins_svc.equation_solver.conditions import DIGITS, Condition, Solution
from plugins_svc.equation_solver.equations import parse_equations
from plugins_svc.expressions.notation import answer_of

MAX_UNKNOWNS = 8
MAX_OUTPUT_CHARS = 500


def solve(text: str) -> list[str]:
    """The lines of the answer, at least one.

    Raises EquationError or ArithmeticRefusedError for text without an answer, and any error of
    sympy's when it fails to solve.
    """
    return answer_of(text, _solve)


def _solve(text: str) -> list[str]:
    parsed = parse_equations(text)
    equations = [d for d in parsed.differences if isinstance(d, sympy.Expr) and d.free_symbols]
    if any(d not in equations and d != 0 for d in parsed.differences):
        raise EquationError("contradiction")
    unknowns = parsed.unknowns
    if not unknowns or len(unknowns) > MAX_UNKNOWNS:
        raise EquationError("no unknown, or too many")
    if len(equations) == 1:
        return _lines(*_roots(equations[0], unknowns, parsed.conditions))
    return _lines(*_unique_solution(equations, unknowns, parsed.conditions))


def _roots(
    equation: sympy.Expr, unknowns: list[sympy.Symbol], conditions: tuple[Condition, ...]
) -> tuple[list[str], list[sympy.Expr]]:
    if len(unknowns) > 1:
        raise EquationError("more unknowns than equations")
    unknown = unknowns[0]
    solutions = [{unknown: root} for root in sympy.solve(equation, unknown)]
    roots = [found[unknown] for found in _fulfilling(solutions, conditions, [equation])]
    if len(roots) == 1:
        return [str(unknown)], roots
    return [f"{unknown}_{index}" for index in range(len(roots))], roots


def _unique_solution(
    equations: list[sympy.Expr], unknowns: list[sympy.Symbol], conditions: tuple[Condition, ...]
) -> tuple[list[str], list[sympy.Expr]]:
    solutions = sympy.solve(equations, unknowns, dict=True)
    if any(len(solution) != len(unknowns) for solution in solutions):
        raise EquationError("no unique solution")
    solutions = _fulfilling(solutions, conditions, equations)
    if len(solutions) != 1:
        raise EquationError("no unique solution")
    return [str(symbol) for symbol in unknowns], [solutions[0][symbol] for symbol in unknowns]


def _fulfilling(
    solutions: Sequence[Solution], conditions: tuple[Condition, ...], equations: list[sympy.Expr]
) -> list[Solution]:
    """Those of `solutions` that fulfil all conditions.

    Of an equation that is not algebraic, such as `sin(x)=0`, sympy finds only some solutions. Then
    a condition must not select among them.
    """
    fulfilling = [s for s in solutions if all(condition.holds(s) for condition in conditions)]
    if len(fulfilling) < len(solutions) and not all(
        equation.is_rational_function(*equation.free_symbols) for equation in equations
    ):
        raise EquationError("a condition that may select other solutions")
    return fulfilling


def _lines(names: list[str], values: list[sympy.Expr]) -> list[str]:
    """A line `name = value` for each; in decimals when the exact form is too long."""
    if not values or not all(_is_finite_number(value) for value in values):
        raise EquationError("no finite solution")
    exact = [f"{name} = {value}" for name, value in zip(names, values, strict=True)]
    if _fits(exact) and not any(value.has(sympy.CRootOf) for value in values):
        return exact
    digits = [
        f"{n} = {value.evalf(DIGITS, chop=True)}" for n, value in zip(names, values, strict=True)
    ]
    if not _fits(digits):
        raise EquationError("solution too long")
    return digits


def _is_finite_number(value: sympy.Expr) -> bool:
    return bool(value.is_number) and cmath.isfinite(complex(value))


def _fits(lines: list[str]) -> bool:
    return len("\n".join(lines)) <= MAX_OUTPUT_CHARS
