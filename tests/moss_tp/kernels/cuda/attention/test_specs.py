"""What is compiled ahead of time is what the wrappers launch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from moss_tp.kernels.cuda.attention import attend, store, variants
from moss_tp.kernels.cuda.attention import specs as specs_module
from moss_tp.kernels.cuda.runtime.jit import pointer
from moss_tp.kernels.cuda.runtime.spec import KernelSpec
from moss_tp.kernels.cuda.runtime.switch import interpreted
from tests.moss_tp.kernels.cuda.attention.paged import make_step
from tests.moss_tp.kernels.paged_case import AttentionShape

SHAPE = AttentionShape(heads=2, head_dim=64, rotary_dim=64, block_size=16)
LENS = [(1, 150), (40, 40)]
KERNELS = ((attend, "attend_kernel"), (attend, "merge_kernel"), (store, "store_kernel"))


Launch = tuple[Any, tuple[Any, ...], dict[str, Any]]


class Recorder:
    """Stands for a kernel: keeps what it is launched with."""

    def __init__(self, function: Any, launches: list[Launch]) -> None:
        self._function, self._launches = function, launches

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*args: Any, **keywords: Any) -> None:
            self._launches.append((self._function, args, keywords))

        return launch


def launched(monkeypatch: pytest.MonkeyPatch, is_int8: bool) -> list[KernelSpec]:
    """Launches of a mixed step, split and not, as specs."""
    launches: list[Launch] = []
    for module, name in KERNELS:
        monkeypatch.setattr(module, name, Recorder(getattr(module, name), launches))
    step, _ = make_step(LENS, torch.float16, SHAPE, is_int8)
    with interpreted():
        step.run()
        monkeypatch.setattr("moss_tp.kernels.cuda.attention.partials.MAX_BYTES", 0)
        step.attend()
    return [_as_spec(*launch) for launch in launches]


def _as_spec(function: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> KernelSpec:
    names = function.arg_names
    values = dict(zip(names, args, strict=False))
    constants = {name: keywords.pop(name) for name in names if name in keywords}
    kinds = {name: _kind(value) for name, value in values.items()}
    constants |= {name: None for name, value in values.items() if value is None}
    signature = {name: kinds.get(name, "constexpr") for name in names}
    stages = (keywords.pop("num_warps"), keywords.pop("num_stages"))
    return KernelSpec("", function, signature, constants, (), *stages, options=keywords)


def _kind(value: Any) -> str:
    if value is None:
        return "constexpr"
    if isinstance(value, torch.Tensor):
        return pointer(value.dtype)
    return "i32" if isinstance(value, int) else "fp32"


def _key(spec: KernelSpec) -> tuple[Any, ...]:
    parts = (spec.signature, spec.constants, spec.options)
    return (
        spec.function,
        *(tuple(p.items()) for p in map(_sorted, parts)),
        spec.num_warps,
        spec.num_stages,
    )


def _sorted(mapping: Any) -> dict[str, object]:
    return dict(sorted(mapping.items()))


def test_specs_are_what_is_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    found = launched(monkeypatch, is_int8=False)
    monkeypatch.undo()
    found += launched(monkeypatch, is_int8=True)
    monkeypatch.undo()
    expected = specs_module.specs(torch.float16, 64, cc=80)
    assert {_key(spec) for spec in found} == {_key(spec) for spec in expected}
    monkeypatch.setattr(variants, "MAX_MERGED_WIDTH", 32)
    other = specs_module.specs(torch.float16, 64, cc=80)
    assert {_key(spec) for spec in found} != {_key(spec) for spec in other}


def test_names_are_their_own() -> None:
    names = [spec.name for spec in specs_module.specs(torch.bfloat16, 256, cc=90)]
    assert len(set(names)) == len(names)
    assert all(
        list(spec.signature) == spec.function.arg_names
        for spec in specs_module.specs(torch.float32, 80, cc=86)
    )
