"""A restricted arithmetic evaluator: numbers, + - * / // **, a few functions, nothing else.

Python's grammar reads the expression into a tree that is only walked, never compiled or
executed. Every limit is checked before the work it bounds: length and depth before parsing,
operands before a power. It knows no variable except the ones the expression itself assigns.
"""

import ast
import math
import operator
import re
from collections.abc import Callable

Number = int | float

MAX_CHARS = 1000
MAX_DEPTH = 60
MAX_NODES = 200
MAX_BITS = 4096

_TOKEN = re.compile(
    r"\s+|0[xX][0-9a-fA-F]+(?!\w)|0[oO][0-7]+(?!\w)|0[bB][01]+(?!\w)"
    r"|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])|[A-Za-z_]\w*|\*\*|//|[-+*/^(),;=]",
    re.ASCII,
)
_CONSTANTS: dict[str, Number] = {"pi": math.pi, "e": math.e}


class EvaluationError(ValueError):
    """The expression is not arithmetic, or over a limit, or has no finite real value."""


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int):
        if base.bit_length() * abs(exponent) > MAX_BITS:
            raise EvaluationError("power too large")
    value: Number | complex = base**exponent
    if isinstance(value, complex):
        raise EvaluationError("not a real number")
    return value


_BINARY: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: _power,
}
_UNARY: dict[type[ast.unaryop], Callable[[Number], Number]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_FUNCTIONS: dict[str, Callable[..., Number]] = {
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


def evaluate(text: str) -> Number:
    """Value of an expression, or of the last one after `;`-separated assignments.

    Angles are radians and `^` is a power. EvaluationError for anything without a value.
    """
    statements = _parse(text)
    names = dict(_CONSTANTS)
    try:
        for statement in statements[:-1]:
            _assign(statement, names)
        last = statements[-1]
        if not isinstance(last, ast.Expr):
            raise EvaluationError("nothing to evaluate")
        return _value(last.value, names)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise EvaluationError(str(error)) from error


def _parse(text: str) -> list[ast.stmt]:
    """The statements of `text`, known to be within every limit on shape."""
    if len(text) > MAX_CHARS:
        raise EvaluationError("expression too long")
    tokens = _tokens(text)
    depth = max_depth = 0
    for token in tokens:
        depth += (token == "(") - (token == ")")
        max_depth = max(max_depth, depth)
    if max_depth > MAX_DEPTH or len(tokens) > 3 * MAX_NODES:
        raise EvaluationError("expression too complex")
    try:
        tree = ast.parse(" ".join("**" if token == "^" else token for token in tokens))
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise EvaluationError("not an expression") from error
    _check_shape(tree)
    if not tree.body:
        raise EvaluationError("nothing to evaluate")
    return tree.body


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise EvaluationError(f"unexpected {text[position]!r}")
        if not match[0].isspace():
            tokens.append(match[0])
        position = match.end()
    return tokens


def _check_shape(tree: ast.AST) -> None:
    """Bound the tree before anything recurses into it."""
    num_nodes = 0
    level: list[ast.AST] = [tree]
    for _ in range(MAX_DEPTH + 2):
        num_nodes += len(level)
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            break
    if level or num_nodes > MAX_NODES:
        raise EvaluationError("expression too complex")


def _assign(statement: ast.stmt, names: dict[str, Number]) -> None:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            names[name] = _value(value, names)
        case ast.Expr(value=value):
            _value(value, names)
        case _:
            raise EvaluationError("not an assignment")


def _value(node: ast.expr, names: dict[str, Number]) -> Number:
    match node:
        case ast.Constant(value=int() | float() as value):
            return _checked(value)
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _checked(_UNARY[type(op)](_value(operand, names)))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _checked(_BINARY[type(op)](_value(left, names), _value(right, names)))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            return _checked(_FUNCTIONS[name](*(_value(argument, names) for argument in args)))
    raise EvaluationError(f"{type(node).__name__} is not arithmetic")


def _checked(value: Number) -> Number:
    if type(value) is int and value.bit_length() <= MAX_BITS:
        return value
    if type(value) is float and math.isfinite(value):
        return value
    raise EvaluationError("not a finite real number of allowed size")
