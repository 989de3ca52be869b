"""The interpreter's `tl.dot` in an order of its own.

BLAS computes the rows of a small product in several orders, by their place and number. On a GPU one
instruction computes them all; here each element is a sum in order of K.
"""

from typing import Any

import numpy as np
import pytest
from triton.runtime import interpreter


def _ordered_dot(
    builder: Any, a: Any, b: Any, total: Any, input_precision: Any, max_num_imprecise_acc: Any
) -> Any:
    left, right = a.data.astype(np.float32), b.data.astype(np.float32)
    out = total.data.copy()
    for k in range(left.shape[1]):
        out += left[:, k, None] * right[None, k]
    return interpreter.TensorHandle(out, total.dtype.scalar)


@pytest.fixture
def ordered_dot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", _ordered_dot)
