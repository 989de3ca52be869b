"""The click types of `moss bench`'s own notations."""

from typing import Any

import click

_WORDS: dict[str, Any] = {"true": True, "false": False, "none": None}


class Numbers(click.ParamType[tuple[int, ...]]):
    """Positive integers: `1,8,32`, or `16-512` with a hyphen as `separator`."""

    name = "numbers"

    def __init__(self, separator: str = ",", count: int | None = None) -> None:
        self._separator, self._count = separator, count

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = str(value).split(self._separator)
        if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is not like 1{self._separator}8", param, ctx)
        if self._count not in (None, len(parts)):
            self.fail(f"{value!r} has not {self._count} numbers", param, ctx)
        return tuple(map(int, parts))


class Setting(click.ParamType[tuple[str, Any]]):
    """`FIELD=VALUE` of EngineConfig; VALUE is a bool, `none`, a number or a string."""

    name = "field=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        field, equals, text = str(value).partition("=")
        if not (field and equals):
            self.fail(f"{value!r} is not FIELD=VALUE", param, ctx)
        return field, _parse(text)


def _parse(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
