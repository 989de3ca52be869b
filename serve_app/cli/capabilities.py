"""The click type of compute capabilities."""

import re
from typing import Any

import click

LEAST = 80


class Capabilities(click.ParamType[tuple[int, ...]]):
    """`80,90`, or `8.0,9.0`."""

    name = "capabilities"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(re.fullmatch(r"\d{1,2}\.?\d", part) for part in parts):
            self.fail(f"{value!r} is not like 80,90", param, ctx)
        found = tuple(int(part.replace(".", "")) for part in parts)
        if min(found) < LEAST:
            self.fail(f"{min(found)} is below {LEAST}", param, ctx)
        return found
