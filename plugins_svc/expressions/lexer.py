"""Splits expressions and equations into tokens by a pattern of all that is allowed in them."""

import re

from plugins_svc.expressions.arithmetic import ArithmeticRefusedError


def tokens_of(text: str, pattern: re.Pattern[str]) -> list[str]:
    """The matches of `pattern` in `text`, end to end, without those that are white space.

    ArithmeticRefusedError for the first character at which nothing matches.
    """
    tokens: list[str] = []
    position = 0
    while position < len(text):
        match = pattern.match(text, position)
        if match is None:
            raise ArithmeticRefusedError(f"unexpected {text[position]!r}")
        if not match[0].isspace():
            tokens.append(match[0])
        position = match.end()
    return tokens
