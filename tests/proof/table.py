"""The table of what the long forms have measured: `python -m tests.proof.table FILE`."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.proof.figures import BARS, Figure

NOT_MEASURED = "not measured"


def read(path: Path) -> list[Figure]:
    """None if there is no such file."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [Figure(**json.loads(line)) for line in lines]


def table(figures: Iterable[Figure]) -> str:
    """A row for each bar, with all its figures; then where they are from."""
    figures = list(figures)
    lines = ["| measure | bar | measured |", "|---|---|---|", *_rows(figures)]
    sources = dict.fromkeys((f.machine, f.commit, f.date.partition(" ")[0]) for f in figures)
    lines += [
        "",
        *(f"Measured on {date}, {machine}, at {commit}." for machine, commit, date in sources),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _rows(figures: list[Figure]) -> Iterator[str]:
    for name, bar in BARS.items():
        of_it = [figure for figure in figures if figure.name == name]
        found = "; ".join(dict.fromkeys(map(_cell, of_it))) or NOT_MEASURED
        yield f"| {bar.measure} | {bar.bar} | {found} |"


def _cell(figure: Figure) -> str:
    text = figure.measured.replace("|", "\\|").replace("\n", " ")
    return text if figure.holds else f"**missed**: {text}"


if __name__ == "__main__":
    print(table(read(Path(sys.argv[1]))), end="")
