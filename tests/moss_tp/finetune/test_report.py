"""Loss and accuracy over batches and processes, and the log of a run that is resumed."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moss_tp.finetune.report import Metric, Report

CPU = torch.device("cpu")
# Mean loss, labels and correct predictions of a batch.
batches = st.lists(
    st.tuples(st.floats(0, 9), st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=8
)


class Processes:
    """An Accelerator of several processes that all have the same sums."""

    def __init__(self, count: int) -> None:
        self.count = count

    def reduce(self, sums: Tensor, how: str) -> Tensor:
        assert how == "sum"
        return sums * self.count


def add(metric: Metric, loss: float, correct: int, labels: int) -> None:
    metric.update(torch.tensor(loss), torch.tensor(correct), torch.tensor(labels))


@settings(deadline=None)
@given(batches, st.integers(1, 3))
def test_every_label_counts_once(batches: list[tuple[float, int, int]], processes: int) -> None:
    """Batches are weighted by their labels, and the number of processes changes nothing."""
    metric = Metric(CPU)
    for loss, first, second in batches:
        add(metric, loss, min(first, second), max(first, second))
    labels = sum(max(first, second) for _, first, second in batches)
    loss, accuracy = metric.read(Processes(processes))
    if labels == 0:
        assert (loss, accuracy) == (0, 0)
        return
    correct = sum(min(first, second) for _, first, second in batches)
    assert accuracy == pytest.approx(correct / labels)
    weighted = sum(loss * max(first, second) for loss, first, second in batches)
    assert loss == pytest.approx(weighted / labels, rel=1e-5)


def test_reading_resets_the_sums() -> None:
    metric = Metric(CPU)
    add(metric, 4.0, 1, 2)
    assert metric.read(Processes(1)) == (4, 0.5)
    add(metric, 2.0, 2, 2)
    assert metric.read(Processes(1)) == (2, 1)
    assert metric.read(Processes(1)) == (0, 0)


def test_a_resumed_run_continues_the_log(tmp_path: Path) -> None:
    for step in (1, 2):
        report = Report(tmp_path / "log", num_steps=2, is_main=True)
        report.advance()
        report.log(step, loss=1 / 3, lr=9e-6)
        report.close()
    lines = (tmp_path / "log" / "train_log.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": step, "seconds": 0, "loss": 0.3333, "lr": 9e-6} for step in (1, 2)
    ]


def test_a_line_is_on_disk_at_once(tmp_path: Path) -> None:
    report = Report(tmp_path, num_steps=2, is_main=True)
    report.log(1, loss=2.0)
    assert '"loss": 2.0' in (tmp_path / "train_log.jsonl").read_text("utf-8")
    report.close()


def test_only_the_main_process_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(tmp_path / "log", num_steps=2, is_main=False)
    report.advance()
    report.log(1, loss=2.0)
    report.close()
    assert not (tmp_path / "log").exists()
    assert capsys.readouterr().err == ""
