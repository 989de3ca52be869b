"""What is compiled ahead of time is what the wrappers launch."""

import pytest
import torch

from moss_tp.kernels.cuda.attention import attend, store, variants
from moss_tp.kernels.cuda.attention import specs as specs_module
from moss_tp.kernels.cuda.runtime.source import Source, source_of_spec
from moss_tp.kernels.cuda.runtime.switch import interpreted
from tests.moss_tp.kernels.cuda.attention.paged import make_step
from tests.moss_tp.kernels.cuda.recorded import assert_compiled, distinct, record
from tests.moss_tp.kernels.paged_case import AttentionShape

SHAPE = AttentionShape(heads=2, head_dim=64, rotary_dim=64, block_size=16)
LENS = [(1, 150), (40, 40)]
KERNELS = ((attend, "attend_kernel"), (attend, "merge_kernel"), (store, "store_kernel"))
CC = 90


def launched(monkeypatch: pytest.MonkeyPatch, is_int8: bool) -> list[Source]:
    """By a mixed step, split and not."""
    found = record(monkeypatch, CC, *KERNELS)
    step, _ = make_step(LENS, torch.float16, SHAPE, is_int8)
    with interpreted():
        step.run()
        monkeypatch.setattr("moss_tp.kernels.cuda.attention.partials.MAX_BYTES", 0)
        step.attend()
    monkeypatch.undo()
    return found


def test_specs_are_what_is_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    found = launched(monkeypatch, is_int8=False) + launched(monkeypatch, is_int8=True)
    assert_compiled(specs_module.specs(torch.float16, 64, cc=80), found, CC)
    monkeypatch.setattr(variants, "PIECE", 64)
    other = specs_module.specs(torch.float16, 64, cc=80)
    assert distinct(source_of_spec(spec, CC) for spec in other) != distinct(found)


def test_names_are_their_own() -> None:
    names = [spec.name for spec in specs_module.specs(torch.bfloat16, 256, cc=90)]
    assert len(set(names)) == len(names)
    assert all(
        list(spec.signature) == spec.function.arg_names
        for spec in specs_module.specs(torch.float32, 80, cc=86)
    )
