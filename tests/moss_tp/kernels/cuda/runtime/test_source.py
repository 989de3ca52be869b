"""What the kernels of this room compile ahead of time is what they launch."""

import pytest
import torch

from moss_tp.kernels.cuda.runtime import read, spin
from moss_tp.kernels.cuda.runtime.switch import interpreted
from tests.moss_tp.kernels.cuda.recorded import assert_compiled, record


def test_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    found = record(monkeypatch, 90, (read, "_read_kernel"))
    with interpreted():
        for length in (1, 16, 1000):
            read.read_sums(torch.zeros(length, dtype=torch.int32))
    monkeypatch.undo()
    assert_compiled(read.specs(), found, 90)


def test_spinning(monkeypatch: pytest.MonkeyPatch) -> None:
    found = record(monkeypatch, 90, (spin, "_spin_kernel"))
    for looks in (1, 16, spin.LOOKS):
        spin.spin(torch.zeros(1, dtype=torch.int32), looks)
    monkeypatch.undo()
    assert_compiled(spin.specs(), found, 90)
