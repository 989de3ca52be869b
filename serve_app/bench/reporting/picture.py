"""Draws sections as one PNG. matplotlib is an optional extra, so it is imported on use."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moss_tp.errors import ConfigError
from serve_app.bench.reporting.figures import Chart, Section

WIDTH, HEIGHT, DPI = 6.0, 4.0, 120  # inches per panel
MISSING = "--png needs matplotlib, which is not installed: pip install 'moss-serve[bench]'"


def check_matplotlib() -> None:
    """Raises ConfigError without matplotlib; call it before a long measurement."""
    try:
        import matplotlib
    except ImportError as error:
        raise ConfigError(MISSING) from error
    matplotlib.use("Agg")


def write_png(file: Path, sections: Sequence[Section]) -> None:
    """Writes one panel per chart, side by side."""
    check_matplotlib()
    from matplotlib.figure import Figure

    panels = [(section.title, chart) for section in sections for chart in section.charts]
    figure = Figure(figsize=(WIDTH * max(1, len(panels)), HEIGHT), layout="constrained")
    for number, (title, chart) in enumerate(panels, start=1):
        _draw(figure.add_subplot(1, len(panels), number), title, chart)
    figure.savefig(file, format="png", dpi=DPI)


def is_picture(content: bytes) -> bool:
    """Whether a file's content is a PNG."""
    return content.startswith(b"\x89PNG\r\n")


def _draw(axes: Any, title: str, chart: Chart) -> None:
    axes.set_title(title, fontsize=9, wrap=True)
    axes.set_xlabel(chart.x)
    axes.set_ylabel(chart.y)
    (_bars if chart.kind == "bar" else _lines)(axes, chart)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)


def _lines(axes: Any, chart: Chart) -> None:
    for name, points in chart.series.items():
        axes.plot([x for x, _ in points], [y for _, y in points], marker=".", label=name)


def _bars(axes: Any, chart: Chart) -> None:
    """One group of bars per label, in order of first appearance."""
    labels = list(dict.fromkeys(x for points in chart.series.values() for x, _ in points))
    width = 0.8 / len(chart.series)
    for number, (name, points) in enumerate(chart.series.items()):
        places = [labels.index(x) + number * width for x, _ in points]
        axes.bar(places, [y for _, y in points], width, label=name)
    center = (len(chart.series) - 1) * width / 2
    axes.set_xticks([i + center for i in range(len(labels))], [str(label) for label in labels])
