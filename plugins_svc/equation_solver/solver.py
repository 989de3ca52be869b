"""Solves one equation for its roots, or a system for its unique solution, as lines for MOSS.

One root reads `x = 26`, several read `x_0 = …`. A system needs exactly one solution; its unknowns
are sorted by name. Runs inside the solver's limited worker process.
"""

import cmath

import sympy  # type: ignore[import-untyped]

from plugins_svc.equation_solver.algebra import EquationError
from plugins_svc.equation_solver.equations import parse_equations

MAX_UNKNOWNS = 8
MAX_OUTPUT_CHARS = 500
DIGITS = 15


def solve(text: str) -> list[str]:
    """The lines of the answer, at least one.

    Raises EquationError or ArithmeticRefusedError for text without an answer, and any error of
    sympy's when it fails to solve.
    """
    differences = parse_equations(text)
    equations = [d for d in differences if isinstance(d, sympy.Expr) and d.free_symbols]
    if any(d not in equations and d != 0 for d in differences):
        raise EquationError("contradiction")
    found = {symbol for equation in equations for symbol in equation.free_symbols}
    unknowns = sorted(found, key=lambda symbol: str(symbol))
    if not unknowns or len(unknowns) > MAX_UNKNOWNS:
        raise EquationError("no unknown, or too many")
    if len(equations) == 1:
        return _lines(*_roots(equations[0], unknowns))
    return _lines(*_unique_solution(equations, unknowns))


def _roots(
    equation: sympy.Expr, unknowns: list[sympy.Symbol]
) -> tuple[list[str], list[sympy.Expr]]:
    if len(unknowns) > 1:
        raise EquationError("more unknowns than equations")
    name = str(unknowns[0])
    roots = sympy.solve(equation, unknowns[0])
    if len(roots) == 1:
        return [name], roots
    return [f"{name}_{index}" for index in range(len(roots))], roots


def _unique_solution(
    equations: list[sympy.Expr], unknowns: list[sympy.Symbol]
) -> tuple[list[str], list[sympy.Expr]]:
    solutions = sympy.solve(equations, unknowns, dict=True)
    if len(solutions) != 1 or len(solutions[0]) != len(unknowns):
        raise EquationError("no unique solution")
    return [str(symbol) for symbol in unknowns], [solutions[0][symbol] for symbol in unknowns]


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
