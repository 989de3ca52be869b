"""Turns in which the user asks for the roots of an equation, solved through `Solve("…")`.

Equations are built from their roots, so the data needs no solver. The roots are written as the
equation solver writes them.
"""

from dataclasses import dataclass
from fractions import Fraction

from plugins_svc.protocol.calls import Call
from plugins_svc.sdk.output import PluginOutput
from serve_app.demo.conversations.demo_turn import DemoTurn
from serve_app.demo.conversations.draw import Draw
from serve_app.demo.conversations.manners import with_opener
from serve_app.demo.conversations.phrasebook import Language, phrasebook


@dataclass(frozen=True)
class Equation:
    """The argument of `Solve`, and its roots as the solver prints them."""

    text: str
    roots: tuple[str, ...]


_PHRASES = phrasebook("equations")


def equation_turn(draw: Draw, language: Language, is_enabled: bool) -> DemoTurn:
    """The user asks for the roots of an equation or of a system."""
    equation, phrases = _equation(draw), _PHRASES[language]
    thoughts = phrases["thoughts"]["enabled" if is_enabled else "disabled"]
    user = with_opener(draw, language, draw.choice(phrases["asks"]).format(e=equation.text))
    if not is_enabled:
        return DemoTurn(user, thoughts, phrases["refusal"])
    joint = "，" if language == "zh" else ", "
    reply = phrases["answer"].format(r=joint.join(equation.roots))
    outcome = (Call("Solve", equation.text), PluginOutput(True, equation.roots))
    return DemoTurn(user, thoughts, reply, (outcome,))


def _equation(draw: Draw) -> Equation:
    kind = draw.weighted({_linear: 6, _two_sided: 2, _quadratic: 2, _system: 2})
    equation: Equation = kind(draw)
    return equation


def _linear(draw: Draw) -> Equation:
    """ax + b = c."""
    name, a, b = draw.choice("xxxyzn"), draw.integer(1, 30), draw.integer(-99, 99)
    c = a * draw.integer(-30, 50) + b if draw.chance(0.7) else draw.integer(-99, 200)
    return Equation(f"{_term(a, name)}{_rest(b)}={c}", (f"{name} = {Fraction(c - b, a)}",))


def _two_sided(draw: Draw) -> Equation:
    """ax + b = cx + d."""
    name, c, step = draw.choice("xxy"), draw.integer(1, 20), draw.integer(1, 20)
    root, b = draw.integer(-20, 30), draw.integer(-50, 50)
    d = step * root + b
    text = f"{_term(c + step, name)}{_rest(b)}={_term(c, name)}{_rest(d)}"
    return Equation(text, (f"{name} = {root}",))


def _quadratic(draw: Draw) -> Equation:
    """(x - p)(x - q) = 0, multiplied out."""
    p, q = sorted(draw.rng.sample(range(-12, 13), 2))
    middle = f"{'-' if p + q > 0 else '+'}{_term(abs(p + q), 'x')}" if p + q else ""
    return Equation(f"x^2{middle}{_rest(p * q)}=0", (f"x_0 = {p}", f"x_1 = {q}"))


def _system(draw: Draw) -> Equation:
    """x + y = s; ax - y = d."""
    x, y, a = draw.integer(-20, 50), draw.integer(-20, 50), draw.integer(1, 9)
    joint = draw.choice((";", ";", ","))
    return Equation(f"x+y={x + y}{joint}{_term(a, 'x')}-y={a * x - y}", (f"x = {x}", f"y = {y}"))


def _term(factor: int, name: str) -> str:
    return name if factor == 1 else f"{factor}{name}"


def _rest(number: int) -> str:
    return f"{number:+d}" if number else ""
