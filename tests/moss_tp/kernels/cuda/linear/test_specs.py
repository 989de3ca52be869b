"""What is compiled ahead of time is what the wrappers launch."""

import pytest
import torch
from torch import Tensor

from moss_tp.kernels.cuda.linear import gemm, norm
from moss_tp.kernels.cuda.linear.cut import Cut, num_pieces
from moss_tp.kernels.cuda.linear.specs import LEAVES, SHAPES, specs
from moss_tp.kernels.cuda.runtime.source import Source
from tests.moss_tp.kernels.cuda.recorded import assert_compiled, distinct, record

ROWS = (1, 16, 17, 32, 33, 64, 65, 128, 500, 512, 513, 2048, 5000)
KERNELS = (
    (gemm, "gemm_kernel"),
    (gemm, "pieces_kernel"),
    (norm, "tree_kernel"),
    (norm, "norm_kernel"),
)


class OnDevice(torch.Tensor):
    """A tensor without memory that says it is on a GPU."""

    is_cuda = True


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta").as_subclass(OnDevice)


def launches(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, cc: int) -> list[Source]:
    monkeypatch.setattr(gemm, "IS_INTERPRETER", False)
    monkeypatch.setattr(gemm, "capability", lambda x: cc)
    found = record(monkeypatch, cc, *KERNELS)
    for hidden, inner, vocab in SHAPES:
        for rows in ROWS:
            _launch(rows, hidden, inner, vocab, dtype)
    return found


def _launch(rows: int, hidden: int, inner: int, vocab: int, dtype: torch.dtype) -> None:
    """A block's and the head's products and sums."""

    def tensor(*shape: int) -> Tensor:
        return empty(*shape, dtype=dtype)

    mid, outputs = hidden + inner, 3 * hidden + inner
    x, bias, out = tensor(rows, hidden), tensor(outputs), tensor(rows, mid)
    qkv = tensor(rows, 3 * hidden)
    gemm.multiply(x, tensor(outputs, hidden), bias, qkv, out[:, hidden:])
    gemm.multiply(x, tensor(vocab, hidden), tensor(vocab), tensor(rows, vocab))
    pieces = empty(num_pieces(LEAVES, rows), rows, hidden, dtype=torch.float32)
    cut = Cut(LEAVES, hidden // LEAVES, inner // LEAVES)
    gemm.multiply_pieces(out, tensor(hidden, mid), pieces, cut)
    norm.sum_pieces(pieces)
    own = (tensor(hidden), tensor(hidden), 1e-5)
    norm.layer_norm(x, own, x)
    norm.add_pieces(pieces, tensor(hidden), x, x, own, x)


@pytest.mark.parametrize("cc", [80, 86, 90, 100])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_all_that_is_launched(dtype: torch.dtype, cc: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = launches(monkeypatch, dtype, cc)
    own = specs(dtype, 256, cc)
    assert_compiled(own, found, cc)
    assert all(list(spec.signature) == list(spec.function.arg_names) for spec in own)


def test_norms_of_a_hidden_size_are_one_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """With pieces or without, of all rows or of chosen ones, for one row or many."""
    found = record(monkeypatch, 90, KERNELS[-1])

    def tensor(*shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
        return empty(*shape, dtype=dtype)

    own = (tensor(6144), tensor(6144), 1e-5)
    for rows in (1, 16, 33):
        x = tensor(rows, 6144)
        norm.layer_norm(x, own, x)
        norm.layer_norm(x, own, x, tensor(2 * rows, dtype=torch.int32)[rows:])
        for pieces in (1, 4):
            split = tensor(pieces, rows, 6144, dtype=torch.float32)
            norm.add_pieces(split, own[1], x, x, own, tensor(rows, 6144))
            norm.add_pieces(split, own[1], None, x)
    assert len(found) == 18 and len(distinct(found)) == 1
    wide = tensor(3, 6152)
    norm.layer_norm(wide, (tensor(6152), tensor(6152), 1e-5), wide)
    assert len(distinct(found)) == 2  # a control: of another hidden size


def test_names_are_unique() -> None:
    names = [spec.name for spec in specs(torch.float16, 256, 90)]
    assert len(names) == len(set(names)) > 10
