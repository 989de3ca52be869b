"""What all kernels share: the interpreter's switch, launch counts, device functions."""

import importlib

import pytest
import torch
import torch.nn.functional as F
import triton.language as tl

from moss_tp.errors import ConfigError
from moss_tp.kernels.cuda.runtime import triton_import
from moss_tp.kernels.cuda.runtime.functions import gelu_tanh
from moss_tp.kernels.cuda.runtime.jit import jit, next_power_of_2
from moss_tp.kernels.cuda.runtime.launches import count_launch, counted_launches


@jit
def _gelu_kernel(x: tl.tensor, out: tl.tensor, SIZE: tl.constexpr) -> None:
    index = tl.arange(0, SIZE)
    tl.store(out + index, gelu_tanh(tl.load(x + index)))


def test_gelu_is_torch_s() -> None:
    x = torch.linspace(-30, 30, 512)
    x[0], x[-1], x[1] = -1e5, 1e5, 0
    out = torch.full_like(x, torch.nan)
    _gelu_kernel[(1,)](x, out, SIZE=512)
    torch.testing.assert_close(out, F.gelu(x, approximate="tanh"), atol=1e-6, rtol=1e-6)


def test_launches_are_counted_inside_the_context_only() -> None:
    count_launch("a")
    with counted_launches() as counts:
        count_launch("a")
        count_launch("b")
        count_launch("a")
    count_launch("b")
    assert counts == {"a": 2, "b": 1}


def test_without_triton_there_is_an_error_for_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match="need Triton: No module named triton"):
        triton_import.import_triton()


@pytest.mark.parametrize(("size", "power"), [(1, 1), (2, 2), (3, 4), (64, 64), (6144, 8192)])
def test_powers_of_2(size: int, power: int) -> None:
    assert next_power_of_2(size) == power
