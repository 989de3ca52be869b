"""Figures of long runs become a table, also those that miss their bar or are not there."""

from pathlib import Path

import pytest

from tests.proof import figures
from tests.proof.figures import BARS, percentile
from tests.proof.table import NOT_MEASURED, read, table


def test_figures_become_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "new" / "results.jsonl"
    monkeypatch.setenv(figures.RESULTS, str(file))
    figures.check("kills", "16 clients | 600 s", True)
    with pytest.raises(AssertionError, match="no acked turn lost: 3 turns"):
        figures.check("store-kill", "3 turns", False)
    text = table(read(file))
    rows = text.splitlines()[2 : 2 + len(BARS)]
    assert rows[0].endswith("| 16 clients \\| 600 s |")
    assert next(row for row in rows if "missed" in row).endswith("| **missed**: 3 turns |")
    assert text.count(NOT_MEASURED) == len(BARS) - 2
    assert f"{figures.machine()}, at {figures.commit()}." in text


def test_a_block_that_fails_has_missed_its_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "results.jsonl"
    monkeypatch.setenv(figures.RESULTS, str(file))
    with figures.measured("kills") as texts:
        texts.append("well")
    with pytest.raises(KeyError), figures.measured("kills") as texts:
        texts.append("3 rounds")
        raise KeyError("lost")
    assert [(f.measured, f.holds) for f in read(file)] == [
        ("well", True),
        ("3 rounds, KeyError: 'lost'", False),
    ]


def test_without_a_file_nothing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(figures.RESULTS, raising=False)
    figures.note("kills", "nothing", True)
    assert table(read(tmp_path / "none")).count(NOT_MEASURED) == len(BARS)


def test_percentiles() -> None:
    assert percentile([], 0.95) == 0
    assert percentile([float(i) for i in range(100)], 0.95) == 95
    assert percentile([1.0], 0.95) == 1
