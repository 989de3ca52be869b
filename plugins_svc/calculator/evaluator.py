"""A restricted evaluator of expressions: numbers, + - * / // **, a few functions, nothing else.

Python's parser turns the expression into a tree, which is walked but never compiled or executed.
Length and nesting are checked before parsing, depth and size of the tree before walking it. The
only variables are those that the expression itself assigns.
"""

import ast
import re

from plugins_svc.expressions.arithmetic import (
    CONSTANTS,
    FUNCTION_NAMES,
    MAX_CHARS,
    MAX_DEPTH,
    ArithmeticRefusedError,
    Number,
    apply,
    checked,
)
from plugins_svc.expressions.lexer import tokens_of
from plugins_svc.expressions.notation import answer_of

MAX_NODES = 200

_TOKEN = re.compile(
    r"\s+|0[xX][0-9a-fA-F]+(?!\w)|0[oO][0-7]+(?!\w)|0[bB][01]+(?!\w)"
    r"|(?:(?!0\d)\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])|[A-Za-z_]\w*|\*\*|//|[-+*/^(),;=]",
    re.ASCII,
)
_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Pow: "**",
}


def evaluate(text: str) -> Number:
    """The value of an expression, or of the last one after assignments separated by `;`.

    `^` is a power. ArithmeticRefusedError for any text without a value, or with two: in
    `max(1,500,1,200)` the commas may separate thousands.
    """
    if len(text) > MAX_CHARS:
        raise ArithmeticRefusedError("expression too long")
    return answer_of(text, _evaluate)


def _evaluate(text: str) -> Number:
    *assignments, last = _parse(text)
    names = dict(CONSTANTS)
    for statement in assignments:
        _assign(statement, names)
    if not isinstance(last, ast.Expr):
        raise ArithmeticRefusedError("nothing to evaluate")
    return _value(last.value, names)


def _parse(text: str) -> list[ast.stmt]:
    """The statements of `text`, at least one, within every limit."""
    tokens = tokens_of(text, _TOKEN)
    if _nesting(tokens) > MAX_DEPTH:
        raise ArithmeticRefusedError("expression too deep")
    try:
        tree = ast.parse(" ".join("**" if token == "^" else token for token in tokens))
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise ArithmeticRefusedError("not an expression") from error
    _check_size(tree)
    if not tree.body:
        raise ArithmeticRefusedError("nothing to evaluate")
    return tree.body


def _nesting(tokens: list[str]) -> int:
    depth = deepest = 0
    for token in tokens:
        depth += (token == "(") - (token == ")")
        deepest = max(deepest, depth)
    return deepest


def _check_size(tree: ast.AST) -> None:
    """Bound depth and number of nodes, before anything recurses into the tree."""
    num_nodes = 0
    level: list[ast.AST] = [tree]
    for _ in range(MAX_DEPTH + 2):  # two levels more: module and statement
        num_nodes += len(level)
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        level = [node for node in level if isinstance(node, ast.expr | ast.stmt)]
    if level or num_nodes > MAX_NODES:
        raise ArithmeticRefusedError("expression too complex")


def _assign(statement: ast.stmt, names: dict[str, Number]) -> None:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            names[name] = _value(value, names)
        case _:
            raise ArithmeticRefusedError("not an assignment")


def _value(node: ast.expr, names: dict[str, Number]) -> Number:
    match node:
        case ast.Constant(value=value):
            return checked(value)
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.UnaryOp(op=ast.UAdd() | ast.USub() as sign, operand=operand):
            value = _value(operand, names)
            return value if isinstance(sign, ast.UAdd) else -value
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return apply(_BINARY[type(op)], _value(left, names), _value(right, names))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTION_NAMES:
            return apply(name, *(_value(argument, names) for argument in args))
    raise ArithmeticRefusedError(f"{type(node).__name__} is not arithmetic")
