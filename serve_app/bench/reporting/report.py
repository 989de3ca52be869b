"""Formats sections as text tables and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from moss_tp.hardware.rates import GpuRates
from serve_app.bench.hardware.machine import Machine
from serve_app.bench.reporting.figures import Section


def describe(machine: Machine | GpuRates) -> str:
    """One line about the machine or its GPU and the measured limits."""
    if isinstance(machine, GpuRates):
        return (
            f"{machine.card}: reads {machine.read_bytes_s / 1e9:.0f} GB/s (copies at "
            f"{machine.copy_bytes_s / 1e9:.0f}, from pinned memory at "
            f"{machine.pinned_bytes_s / 1e9:.0f}) and multiplies {machine.dtype} matrices at "
            f"{machine.flops_s / 1e12:.0f} TFLOP/s"
        )
    dtypes = " or ".join(dict.fromkeys((machine.dtype, "float32")))
    return (
        f"{machine.cpu}, {machine.cores} cores; on {machine.threads} threads it reads "
        f"{machine.read_bytes_s / 1e9:.1f} GB/s and multiplies {dtypes} matrices "
        f"at {machine.flops_s / 1e9:.0f} GFLOP/s"
    )


def as_text(section: Section) -> str:
    """The title and a Markdown table."""
    columns = list(section.rows[0])
    cells = [columns, *([str(row[column]) for column in columns] for row in section.rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = [_line(line, widths) for line in cells]
    lines.insert(1, _line(["-" * (width - 1) + ":" for width in widths], widths))
    return "\n".join([section.title, "", *lines])


def as_json(
    sections: Sequence[Section], machine: Machine | GpuRates | None, command: Sequence[str]
) -> str:
    """The whole report of a run, for other programs."""
    report: dict[str, Any] = {
        "moss_serve": version("moss-serve"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "machine": None if machine is None else asdict(machine),
        "sections": {section.name: _fields(section) for section in sections},
    }
    return json.dumps(report, ensure_ascii=False, indent=1) + "\n"


def write_json(
    file: Path,
    sections: Sequence[Section],
    machine: Machine | GpuRates | None,
    command: Sequence[str],
) -> None:
    """Writes `as_json` to `file`."""
    file.write_text(as_json(sections, machine, command), encoding="utf-8")


def is_report(text: bytes) -> bool:
    """Whether a file's content is what `write_json` writes."""
    try:
        report = json.loads(text)
    except ValueError:
        return False
    return isinstance(report, dict) and "sections" in report


def _fields(section: Section) -> dict[str, Any]:
    charts = [asdict(chart) for chart in section.charts]
    return {"title": section.title, "rows": section.rows, "charts": charts}


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
    return f"| {' | '.join(padded)} |"
