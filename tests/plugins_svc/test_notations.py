"""The calculator and the solver against exact arithmetic, in every notation: right, or no result.

A term is drawn with its exact value, and rendered in a notation that is drawn too. The value of
what a person would read there is known, so a wrong number cannot hide behind a lenient parser.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import sympy  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins_svc.calculator.evaluator import evaluate
from plugins_svc.equation_solver.solver import solve
from plugins_svc.expressions.arithmetic import ArithmeticRefusedError

Draw = st.DrawFn
FULL_WIDTH = {code: 0xFEE0 + code for code in range(0x21, 0x7F)}


@dataclass(frozen=True)
class Notation:
    """How numbers and operators are written; `separator` is between arguments and equations."""

    thousands: str = ""
    decimal: str = "."
    separator: str = ", "
    times: str = "*"
    over: str = "/"
    minus: str = "-"
    space: str = ""
    is_full_width: bool = False

    def number(self, value: Fraction) -> str:
        """A number with at most two decimals: `1,500` is fifteen hundred."""
        whole, _, decimals = f"{float(abs(value)):.2f}".partition(".")
        grouped = f"{int(whole):,}".replace(",", self.thousands)
        decimals = decimals.rstrip("0")
        return grouped + (self.decimal + decimals if decimals else "")

    def finish(self, text: str) -> str:
        return text.translate(FULL_WIDTH) if self.is_full_width else text


PLAIN = Notation()
NOTATIONS = st.builds(
    Notation,
    thousands=st.sampled_from(
        ["", "", ",", "，", " ", "\u00a0", "\u202f", "_", "'", "’", "、", "."]
    ),
    decimal=st.sampled_from([".", ".", ".", ",", "，", "·", "٫"]),
    separator=st.sampled_from([",", ", ", "，", "、", ";", "；", " "]),
    times=st.sampled_from(["*", "×", "·", "∗", "x", " × "]),
    over=st.sampled_from(["/", "÷", "：", " / "]),
    minus=st.sampled_from(["-", "−", "－", " - ", "–"]),
    space=st.sampled_from(["", " ", "\u3000"]),
    is_full_width=st.booleans(),
)
INTEGERS = (
    st.integers(0, 99) | st.integers(100, 9_999_999) | st.sampled_from([1000, 1500, 200, 10**6])
)
NUMBERS = st.builds(Fraction, INTEGERS) | st.integers(1, 9_999_999).map(lambda n: Fraction(n, 100))


@dataclass(frozen=True)
class Term:
    value: Fraction
    render: Callable[[Notation], str]


def is_unclear(notation: Notation) -> bool:
    """A person cannot tell either what `1.500` or `max(1,5,2)` means."""
    commas = (",", "，", "、")
    is_comma = notation.decimal in commas
    return notation.thousands == "." or (
        is_comma and {notation.separator, notation.thousands} & {*commas} != set()
    )


@st.composite
def terms(draw: Draw, depth: int = 3) -> Term:
    """An arithmetic expression in fully parenthesised form."""
    kind = (
        draw(st.sampled_from(["number", "number", "sum", "product", "call"])) if depth else "number"
    )
    if kind == "number":
        value = draw(NUMBERS)
        return Term(value, lambda notation: notation.number(value))
    left, right = draw(terms(depth - 1)), draw(terms(depth - 1))
    if kind == "call":
        return _call(draw, left, right, *draw(st.lists(terms(depth - 1), max_size=2)))
    return _binary(draw(st.sampled_from("+-" if kind == "sum" else "*/")), left, right)


def _binary(sign: str, left: Term, right: Term) -> Term:
    if sign == "/" and right.value == 0:
        sign = "+"
    value = {
        "+": lambda: left.value + right.value,
        "-": lambda: left.value - right.value,
        "*": lambda: left.value * right.value,
        "/": lambda: left.value / right.value,
    }[sign]()

    def render(notation: Notation) -> str:
        written = {"+": "+", "-": notation.minus, "*": notation.times, "/": notation.over}[sign]
        space = notation.space
        return f"({left.render(notation)}{space}{written}{space}{right.render(notation)})"

    return Term(value, render)


def _call(draw: Draw, *arguments: Term) -> Term:
    name, function = draw(st.sampled_from([("max", max), ("min", min)]))
    value = function(argument.value for argument in arguments)
    return Term(
        value,
        lambda n: f"{name}({n.separator.join(argument.render(n) for argument in arguments)})",
    )


def is_near(found: float, exact: Fraction, scale: float) -> bool:
    return abs(found - float(exact)) <= 1e-9 * max(1.0, scale)


def calculated(text: str) -> float | None:
    try:
        return float(evaluate(text))
    except ArithmeticRefusedError:
        return None


@settings(deadline=None, max_examples=400)
@given(terms(), NOTATIONS)
def test_a_calculation_is_right_or_has_no_result(term: Term, notation: Notation) -> None:
    plain = calculated(term.render(PLAIN))
    found = calculated(notation.finish(term.render(notation)))
    if found is None or is_unclear(notation) or plain is None:
        return
    # Floats lose digits where large numbers cancel; `plain` has the same losses.
    assert is_near(found, term.value, abs(plain - float(term.value)) * 1e9 + abs(plain))


@settings(deadline=None)
@given(terms())
def test_plain_notation_is_calculated(term: Term) -> None:
    text = term.render(PLAIN)
    if len(text) < 300:
        assert calculated(text) is not None


@settings(deadline=None)
@given(terms(depth=2), st.sampled_from([",", "，"]), st.booleans())
def test_thousands_are_read_where_nothing_else_is_meant(
    term: Term, thousands: str, is_full_width: bool
) -> None:
    notation = Notation(
        thousands=thousands, times="×", over="÷", minus="−", is_full_width=is_full_width
    )
    text = notation.finish(term.render(notation))
    if "m" not in term.render(PLAIN) and text.count(",") + text.count("，") <= 6:
        assert calculated(text) == calculated(term.render(PLAIN))


CONDITIONS = ["", "x>0", "x<0", "x≠0", "x>=1", "0<x<5", "x is an integer", "positive", "x∈N", "x>y"]


def solved(text: str) -> dict[str, float] | None:
    """The answer's lines as numbers; complex roots are left out."""
    try:
        lines = solve(text)
    except ArithmeticRefusedError:
        return None
    values = (line.split(" = ") for line in lines)
    found = {name: complex(sympy.sympify(value)) for name, value in values}
    return {name: value.real for name, value in found.items() if abs(value.imag) < 1e-9}


def coefficient(value: Fraction, notation: Notation, name: str) -> str:
    return f"{notation.number(value)}{notation.space}{name}"


@settings(deadline=None, max_examples=200)
@given(NUMBERS, NUMBERS, NUMBERS, NOTATIONS, st.sampled_from(["", "{0} x", "x", "y", "kg", "{0}1"]))
def test_an_equation_is_right_or_has_no_result(
    factor: Fraction, summand: Fraction, right: Fraction, notation: Notation, rest: str
) -> None:
    if factor == 0 or is_unclear(notation):
        return
    written = f"{coefficient(factor, notation, 'x')}+{notation.number(summand)}"
    text = f"{written}={notation.number(right)}{rest.format(notation.separator)}"
    found = solved(notation.finish(text))
    if found is not None:
        assert rest in ("", "{0} x", "x") or right == 0
        is_product = rest == "x" or (rest == "{0} x" and notation.separator == " ")
        exact = -summand / (factor - right) if is_product else (right - summand) / factor
        assert list(found) == ["x"] and is_near(found["x"], exact, abs(float(exact)))


@settings(deadline=None, max_examples=100)
@given(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), NUMBERS, NUMBERS, NOTATIONS)
def test_a_system_is_right_or_has_no_result(
    factors: tuple[Fraction, ...], x: Fraction, y: Fraction, notation: Notation
) -> None:
    a, b, c, d = factors
    if a * d == b * c or is_unclear(notation):
        return
    first, second = a * x + b * y, c * x + d * y
    if any(100 % value.denominator for value in (first, second)):
        return
    sides = [
        f"{coefficient(p, notation, 'x')}+{coefficient(q, notation, 'y')}={notation.number(r)}"
        for p, q, r in ((a, b, first), (c, d, second))
    ]
    found = solved(notation.finish(notation.separator.join(sides)))
    if found is not None:
        assert sorted(found) == ["x", "y"]
        scale = 1e3 * max(abs(float(number)) for number in (x, y, first, second, 10**6))
        assert is_near(found["x"], x, scale) and is_near(found["y"], y, scale)


@settings(deadline=None, max_examples=100)
@given(
    st.integers(-9, 9),
    st.integers(-9, 9),
    st.sampled_from(CONDITIONS),
    st.sampled_from([",", ", ", ";", "；"]),
)
def test_a_condition_is_honoured_or_there_is_no_result(
    first: int, second: int, condition: str, separator: str
) -> None:
    text = f"(x-({first}))*(x-({second}))=0{separator}{condition}"
    found = solved(text)
    kept = sorted(filter(FULFILS.get(condition, lambda x: False), {first, second}))
    if condition in FULFILS and kept:
        assert found is not None and sorted(found.values()) == kept
    else:
        assert found is None


FULFILS: dict[str, Callable[[int], bool]] = {
    "": lambda x: True,
    "x>0": lambda x: x > 0,
    "x<0": lambda x: x < 0,
    "x≠0": lambda x: x != 0,
    "x>=1": lambda x: x >= 1,
    "0<x<5": lambda x: 0 < x < 5,
}
