"""What the commands of `moss bench` have in common: their shared flags, and where figures go."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from moss_tp.device import DTYPES
from serve_app.demo.bundled import BUNDLED_MODEL

if TYPE_CHECKING:
    from serve_app.bench.figures import Section
    from serve_app.bench.launch import EngineSpec
    from serve_app.bench.machine import Machine

Command = TypeVar("Command", bound=Callable[..., Any])


class Numbers(click.ParamType[tuple[int, ...]]):
    """`1,8,32`, or `16-512` where `separator` is a hyphen: positive integers."""

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
    """`FIELD=VALUE` of the engine's config."""

    name = "field=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        field, equals, text = str(value).partition("=")
        if not (field and equals):
            self.fail(f"{value!r} is not FIELD=VALUE", param, ctx)
        words: dict[str, Any] = {"true": True, "false": False, "none": None}
        if text.lower() in words:
            return field, words[text.lower()]
        for number in (int, float):
            try:
                return field, number(text)
            except ValueError:
                continue
        return field, text


@dataclass(frozen=True)
class Shared:
    """The shared flags. `threads` None deals this machine's cores out to the ranks."""

    model: str
    tp: int
    threads: int | None
    dtype: str
    settings: tuple[tuple[str, Any], ...]
    repeats: int
    seed: int
    json_file: Path | None
    png_file: Path | None

    def check(self) -> None:
        """ConfigError for what would only fail when the measuring is over."""
        if self.png_file is not None:
            from serve_app.bench.picture import check_matplotlib

            check_matplotlib()

    def spec(self, tp: int | None = None, threads: int | None = None) -> "EngineSpec":
        from serve_app.bench.launch import EngineSpec

        ranks = tp or self.tp
        dealt = max(1, len(os.sched_getaffinity(0)) // ranks)
        return EngineSpec(
            self.model, ranks, threads or self.threads or dealt, self.dtype, self.settings
        )

    def show(self, sections: "Sequence[Section]", machine: "Machine | None" = None) -> None:
        """Prints the tables; writes the files that were asked for."""
        from serve_app.bench.report import as_text, write_json

        for section in sections:
            click.echo(f"\n{as_text(section)}")
        if self.json_file is not None:
            write_json(self.json_file, sections, machine, sys.argv)
        if self.png_file is not None:
            from serve_app.bench.picture import write_png

            write_png(self.png_file, sections)


_FILE = click.Path(dir_okay=False, path_type=Path)
_OPTIONS = (
    click.option("--model", default=str(BUNDLED_MODEL), help="Model directory or hub id."),
    click.option("--tp", type=click.IntRange(1), default=1, show_default=True, help="Ranks."),
    click.option("--threads", type=click.IntRange(1), help="Of each rank. Default: cores / ranks."),
    click.option("--dtype", type=click.Choice(DTYPES), default="bfloat16", show_default=True),
    click.option(
        "--set", "settings", type=Setting(), multiple=True, help="A field of the engine's config."
    ),
    click.option("--repeats", type=click.IntRange(1), default=3, show_default=True),
    click.option("--seed", default=0, show_default=True, help="Of the random prompts."),
    click.option("--json", "json_file", type=_FILE, help="Write all figures here."),
    click.option("--png", "png_file", type=_FILE, help="Draw the figures here."),
)


def shared_options(command: Command) -> Command:
    """Adds the flags of Shared."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
