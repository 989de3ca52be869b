"""A row's output is the same to the bit, whatever the rows beside it and its place among them.

On every multiply-add that this machine has; `test_other_builds` runs it as other machines do.
"""

from functools import cache, reduce

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moss_tp.kernels.base import DenseWeight, Linear
from moss_tp.kernels.cpu.linear.gemm_kernel import MAX_TASK_ROWS
from moss_tp.kernels.cpu.norm import add_norm
from moss_tp.kernels.cpu.runtime.program import Program
from tests.moss_tp.kernels.test_linear import LINEARS, MUL_ADDS

MAX_ROWS = MAX_TASK_ROWS + 34  # more than one task
# Around a panel's 16 columns and a group's 64; one K step, several K blocks, and what is left over.
SHAPES = [(1, 2), (15, 34), (64, 512), (70, 1030), (130, 2054)]


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@cache
def linear_of(name: str, shape: tuple[int, int], has_gelu: bool) -> Linear:
    make, dtype = LINEARS[name]
    outputs, inputs = shape
    weight = (random(outputs, inputs) / inputs**0.5).to(dtype)
    return make(DenseWeight(weight, random(outputs).to(dtype)), has_gelu)


@st.composite
def spans(draw: st.DrawFn) -> tuple[int, int, int]:
    """Some neighbouring rows of a step, often one."""
    rows = draw(st.integers(1, MAX_ROWS))
    start = draw(st.integers(0, rows - 1))
    return rows, start, draw(st.just(start + 1) | st.integers(start + 1, rows))


def assert_rows_stand_alone(
    linear: Linear, x: Tensor, residual: Tensor | None, start: int, stop: int
) -> None:
    together = linear(x, residual)
    part = None if residual is None else residual[start:stop]
    assert torch.equal(linear(x[start:stop], part), together[start:stop])


@pytest.mark.parametrize("name", MUL_ADDS)
@settings(max_examples=40, deadline=None)
@given(spans(), st.sampled_from(SHAPES), st.booleans(), st.booleans())
def test_products(
    name: str,
    span: tuple[int, int, int],
    shape: tuple[int, int],
    has_gelu: bool,
    has_residual: bool,
) -> None:
    rows, start, stop = span
    residual = random(rows, shape[0]) if has_residual else None
    linear = linear_of(name, shape, has_gelu)
    assert_rows_stand_alone(linear, random(rows, shape[1]), residual, start, stop)


def sums_by_rows(x: Tensor, residual: Tensor | None = None) -> Tensor:
    """Cuts K where it pleases, as libraries do: more often for few rows than for many."""
    size = 32 if len(x) < 8 else 256
    sums = [
        reduce(torch.add, x[:, first : first + size].unbind(1))
        for first in range(0, x.shape[1], size)
    ]
    total: Tensor = reduce(torch.add, sums)
    return total


def test_products_whose_order_depends_on_the_rows_are_noticed() -> None:
    x = random(20, 1030)
    assert_rows_stand_alone(sums_by_rows, x[:5], None, 0, 1)
    with pytest.raises(AssertionError):
        assert_rows_stand_alone(sums_by_rows, x, None, 0, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(max_examples=40, deadline=None)
@given(spans(), st.sampled_from([1, 15, 64, 257, 1030]))
def test_norms(dtype: torch.dtype, span: tuple[int, int, int], hidden: int) -> None:
    rows, start, stop = span
    x, weight, bias = random(rows, hidden), random(hidden), random(hidden + 1)[1:]

    def normed(x: Tensor) -> Tensor:
        program, out = Program(), torch.empty(len(x), hidden, dtype=dtype)
        add_norm(program, x, weight, bias, torch.tensor([1e-5]), out)
        program.run()
        return out

    assert torch.equal(normed(x[start:stop]), normed(x)[start:stop])


@settings(max_examples=40, deadline=None)
@given(spans(), st.sampled_from([1, 15, 64, 257, 1030]))
def test_the_last_norm(span: tuple[int, int, int], hidden: int) -> None:
    """torch's own: the model applies it to the rows whose logits are wanted."""
    rows, start, stop = span
    x, weight, bias = random(rows, hidden), random(hidden), random(hidden + 1)[1:]

    def normed(x: Tensor) -> Tensor:
        return F.layer_norm(x, (hidden,), weight, bias)

    assert torch.equal(normed(x[start:stop].clone()), normed(x)[start:stop])
