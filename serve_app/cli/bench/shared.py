"""The flags that all measuring commands of `moss bench` share, and where results are written."""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moss_tp.device import DEVICES, DTYPES, TRAITS, threads_per_rank
from moss_tp.errors import ConfigError
from serve_app.cli.bench.values import Setting
from serve_app.cli.options import with_options
from serve_app.demo.bundled import BUNDLED_MODEL

if TYPE_CHECKING:
    from moss_tp.hardware.rates import GpuRates
    from serve_app.bench.hardware.machine import Machine
    from serve_app.bench.launch import EngineSpec
    from serve_app.bench.reporting.figures import Section

_VARIANT = re.compile(r"tp([1-9]\d*)x([1-9]\d*)")
_FILE = click.Path(dir_okay=False, path_type=Path)
_DTYPE_HELP = "Default: " + ", ".join(f"{t.default_dtype} on {d}" for d, t in TRAITS.items()) + "."
_OPTIONS = (
    click.option("--model", default=str(BUNDLED_MODEL), help="Model directory or hub id."),
    click.option("--tp", type=click.IntRange(1), default=1, show_default=True, help="Ranks."),
    click.option("--threads", type=click.IntRange(1), help="Per rank. Default: cores / ranks."),
    click.option("--device", type=click.Choice(DEVICES), default="cpu", show_default=True),
    click.option("--dtype", type=click.Choice(DTYPES), help=_DTYPE_HELP),
    click.option(
        "--set", "settings", type=Setting(), multiple=True, help="A field of the engine's config."
    ),
    click.option("--repeats", type=click.IntRange(1), default=3, show_default=True),
    click.option("--seed", default=0, show_default=True, help="Of the random prompts."),
    click.option("--json", "json_file", type=_FILE, help="Write all figures here."),
    click.option("--png", "png_file", type=_FILE, help="Draw the figures here."),
)


@dataclass(frozen=True)
class Shared:
    """The values of the shared flags. `threads` None divides this machine's cores by the ranks."""

    model: str
    tp: int
    threads: int | None
    device: str
    dtype: str
    settings: tuple[tuple[str, Any], ...]
    repeats: int
    seed: int
    json_file: Path | None
    png_file: Path | None

    def check(self) -> None:
        """Raises ConfigError for what would otherwise fail only after the measurement."""
        from serve_app.bench.reporting.picture import is_picture
        from serve_app.bench.reporting.report import is_report

        _check_output(self.json_file, is_report)
        _check_output(self.png_file, is_picture)
        if self.png_file is not None:
            from serve_app.bench.reporting.picture import check_matplotlib

            check_matplotlib()

    def spec(self, tp: int | None = None, threads: int | None = None) -> "EngineSpec":
        """The engine to measure; `tp` and `threads` override the flags. Raises ConfigError for
        settings that cannot work."""
        from serve_app.bench.launch import EngineSpec

        ranks = tp or self.tp
        num_threads = threads_per_rank(ranks, threads or self.threads)
        spec = EngineSpec(self.model, ranks, num_threads, self.dtype, self.settings, self.device)
        spec.config()
        return spec

    def specs(self, compare: str | None) -> "list[EngineSpec]":
        """The engines to alternate: those named in `compare` (`tp1x2,tp2x1`), or the one."""
        if compare is None:
            return [self.spec()]
        matches = [_VARIANT.fullmatch(name) for name in compare.split(",")]
        if not all(matches):
            raise click.BadParameter(f"{compare!r} is not like tp1x2,tp2x1", param_hint="--compare")
        return [self.spec(int(match[1]), int(match[2])) for match in matches if match]

    @property
    def serve_flags(self) -> list[str]:
        """The flags of `moss serve` for the same engine."""
        device = ["--device", self.device]
        return ["--model", self.model, "--tp", str(self.tp), "--dtype", self.dtype, *device]

    def show(
        self, sections: "Sequence[Section]", machine: "Machine | GpuRates | None" = None
    ) -> None:
        """Prints the tables and writes the files that the flags name."""
        from serve_app.bench.reporting.report import as_text, write_json

        for section in sections:
            click.echo(f"\n{as_text(section)}")
        if self.json_file is not None:
            write_json(self.json_file, sections, machine, sys.argv)
        if self.png_file is not None:
            from serve_app.bench.reporting.picture import write_png

            write_png(self.png_file, sections)


def _check_output(file: Path | None, is_own: Callable[[bytes], bool]) -> None:
    """Raises ConfigError if `file` cannot be written, or holds anything but an earlier result."""
    if file is None:
        return
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"there is no directory for {file}")
    if file.is_file() and (content := file.read_bytes()) and not is_own(content):
        raise ConfigError(f"{file} is not a result of moss bench: choose another name")


def shared_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the shared flags; `command` gets their values, checked, as its first argument."""

    @wraps(command)
    def call(**flags: Any) -> None:
        flags["dtype"] = flags["dtype"] or TRAITS[flags["device"]].default_dtype
        shared = Shared(**{field.name: flags.pop(field.name) for field in fields(Shared)})
        shared.check()
        command(shared, **flags)

    return with_options(*_OPTIONS)(call)
