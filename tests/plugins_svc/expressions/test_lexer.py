"""Tokens of expressions and equations."""

import re

import pytest

from plugins_svc.expressions.arithmetic import ArithmeticRefusedError
from plugins_svc.expressions.lexer import tokens_of

PATTERN = re.compile(r"\s+|[0-9]+|[-+*/]")


def test_tokens_without_white_space() -> None:
    assert tokens_of(" 12 *3\n-4", PATTERN) == ["12", "*", "3", "-", "4"]
    assert tokens_of("", PATTERN) == []


@pytest.mark.parametrize("text", ["x", "1+x", "1 $"])
def test_an_unexpected_character_is_named(text: str) -> None:
    with pytest.raises(ArithmeticRefusedError, match=f"unexpected '{re.escape(text[-1])}'"):
        tokens_of(text, PATTERN)
