"""The same sections as text, JSON and a picture."""

import json
import sys
from pathlib import Path

import pytest

from moss_tp.errors import ConfigError
from serve_app.bench.hardware.machine import Machine, measure_machine
from serve_app.bench.reporting.figures import Chart, Section
from serve_app.bench.reporting.picture import is_picture, write_png
from serve_app.bench.reporting.report import as_json, as_text, describe, is_report, write_json

SECTIONS = [
    Section(
        "decode",
        "decode",
        [{"engine": "tp1x2", "tok_s": 8.5}, {"engine": "tp2x1", "tok_s": 12.25}],
        [Chart("bar", "batch", "tok/s", {"a": [(1, 8.5), (8, 9)], "b": [(8, 1.0)]})],
    ),
    Section("chat", "chat", [{"turn": 1}], [Chart("line", "turn", "ms", {"a": [(1, 2.0)]})]),
    Section("turns", "no chart", [{"turn": 1}]),
]


def test_text_is_a_markdown_table() -> None:
    assert as_text(SECTIONS[0]).split("\n") == [
        "decode",
        "",
        "| engine | tok_s |",
        "| -----: | ----: |",
        "|  tp1x2 |   8.5 |",
        "|  tp2x1 | 12.25 |",
    ]


def test_json_holds_rows_charts_machine_and_command() -> None:
    machine = Machine("cpu", 2, 1, "float32", 1e9, 2e9)
    report = json.loads(as_json(SECTIONS, machine, ["moss", "bench"]))
    assert report["machine"]["read_bytes_s"] == 1e9
    assert report["command"] == ["moss", "bench"]
    assert report["sections"]["decode"]["rows"] == SECTIONS[0].rows
    assert report["sections"]["chat"]["charts"][0]["series"] == {"a": [[1, 2.0]]}


def test_results_are_told_from_other_files(tmp_path: Path) -> None:
    """Only an earlier result may be overwritten."""
    machine = Machine("cpu", 2, 1, "float32", 1e9, 2e9)
    write_json(tmp_path / "a.json", SECTIONS, machine, ["moss"])
    write_png(tmp_path / "a.png", SECTIONS)
    report, picture = ((tmp_path / name).read_bytes() for name in ("a.json", "a.png"))
    assert is_report(report)
    assert not is_report(picture)
    assert is_picture(picture)
    assert not is_picture(report)


def test_a_picture_has_one_panel_per_chart(tmp_path: Path) -> None:
    write_png(tmp_path / "two.png", SECTIONS)
    write_png(tmp_path / "one.png", SECTIONS[1:])
    two, one = ((tmp_path / name).read_bytes() for name in ("two.png", "one.png"))
    assert two.startswith(b"\x89PNG")
    assert _width(two) == 2 * _width(one)


def _width(png: bytes) -> int:
    return int.from_bytes(png[16:20])


def test_without_matplotlib_the_error_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"moss-serve\[bench\]"):
        write_png(tmp_path / "a.png", SECTIONS)


def test_a_machine_is_measured_and_described() -> None:
    machine = measure_machine(1, "float32")
    # Wide enough for a slow laptop and for the fastest server.
    assert 1e8 < machine.read_bytes_s < 1e13
    assert 1e8 < machine.flops_s < 1e16
    assert "1 threads" in describe(machine)
