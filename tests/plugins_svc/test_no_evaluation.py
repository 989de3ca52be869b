"""No text of a call can be run as code: the package names no function that evaluates it."""

import ast
from pathlib import Path

import plugins_svc

FORBIDDEN = {"eval", "exec", "compile", "sympify", "S", "parse_expr", "lambdify", "nsimplify"}
FILES = sorted(Path(plugins_svc.__file__).parent.rglob("*.py"))
NAME_FIELD = {ast.Name: "id", ast.Attribute: "attr", ast.alias: "name"}


def forbidden_names(source: str) -> list[str]:
    """Names in `source` that evaluate text; `re.compile` does not."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if getattr(node, NAME_FIELD.get(type(node), ""), None) in FORBIDDEN
        and ast.unparse(node) != "re.compile"
    ]


def test_defence_text_never_reaches_an_evaluator_of_code() -> None:
    assert len(FILES) > 20
    found = {path.name: forbidden_names(path.read_text("utf-8")) for path in FILES}
    assert not any(found.values()), found


def test_a_forbidden_name_is_noticed() -> None:
    for source in ("eval('1')", "sympy.S('1')", "from sympy import sympify", "x = [compile]"):
        assert forbidden_names(source)
    assert not forbidden_names("import re\nre.compile('x')\nevaluate(S2)")
