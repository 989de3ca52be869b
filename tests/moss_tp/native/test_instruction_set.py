"""The name of the instruction set tells processors apart, and what kernels may use of them."""

import re

import numba
import pytest

from moss_tp.native.instruction_set import instruction_set


def test_it_names_the_processor_and_its_features(monkeypatch: pytest.MonkeyPatch) -> None:
    name = instruction_set()
    assert re.fullmatch(r"\S+ [0-9a-f]{8}", name) and instruction_set() == name
    monkeypatch.setattr(numba.config, "CPU_FEATURES", "+sse2")
    assert instruction_set() != name
