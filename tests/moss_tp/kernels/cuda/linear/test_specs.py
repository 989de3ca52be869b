"""What is compiled ahead of time is what the wrappers launch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from moss_tp.kernels.cuda.linear import gemm, norm
from moss_tp.kernels.cuda.linear.specs import SHAPES, specs
from moss_tp.kernels.cuda.linear.tiles import num_pieces, piece_size
from moss_tp.kernels.cuda.runtime.spec import KernelSpec

ROWS = (1, 16, 17, 32, 33, 64, 65, 128, 500, 512, 513, 2048, 5000)
Launch = tuple[str, frozenset[tuple[str, object]]]


@dataclass
class Recorder:
    """Stands for a kernel: keeps what it is launched with."""

    name: str
    launches: set[Launch] = field(default_factory=set)
    num_arguments: set[int] = field(default_factory=set)

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        assert all(0 < size < 65536 for size in grid)

        def launch(*arguments: object, **keywords: Any) -> None:
            self.launches.add((self.name, frozenset(keywords.items())))
            self.num_arguments.add(len(arguments))

        return launch


class OnDevice(torch.Tensor):
    """A tensor without memory that says it is on a GPU."""

    is_cuda = True


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta").as_subclass(OnDevice)


def launches(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, cc: int) -> list[Recorder]:
    recorders = [Recorder("gemm_kernel"), Recorder("pieces_kernel"), Recorder("norm_kernel")]
    for recorder in recorders:
        room = norm if recorder.name == "norm_kernel" else gemm
        monkeypatch.setattr(room, recorder.name, recorder)
    monkeypatch.setattr(gemm, "capability", lambda x: cc)
    for hidden, inner, vocab in SHAPES:
        for rows in ROWS:
            _launch(rows, hidden, inner, vocab, dtype)
    return recorders


def _launch(rows: int, hidden: int, inner: int, vocab: int, dtype: torch.dtype) -> None:
    """A block's and the head's products and sums."""

    def tensor(*shape: int) -> Tensor:
        return empty(*shape, dtype=dtype)

    mid, outputs = hidden + inner, 3 * hidden + inner
    x, bias, out = tensor(rows, hidden), tensor(outputs), tensor(rows, mid)
    qkv = tensor(rows, 3 * hidden)
    gemm.multiply(x, tensor(outputs, hidden), bias, qkv, out[:, hidden:])
    gemm.multiply(x, tensor(vocab, hidden), tensor(vocab), tensor(rows, vocab))
    pieces = empty(num_pieces(mid, hidden), rows, hidden, dtype=torch.float32)
    gemm.multiply_pieces(out, tensor(hidden, mid), pieces, piece_size(mid, hidden))
    own = (tensor(hidden), tensor(hidden), 1e-5)
    norm.layer_norm(x, own, x)
    norm.add_pieces(pieces, tensor(hidden), x, x, own, x)


def compiled(spec: KernelSpec) -> Launch:
    keywords = dict(spec.constants) | dict(spec.options)
    keywords |= {"num_warps": spec.num_warps, "num_stages": spec.num_stages}
    return spec.name.split()[0], frozenset(keywords.items())


@pytest.mark.parametrize("cc", [80, 86, 90, 100])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_all_that_is_launched(dtype: torch.dtype, cc: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm, "IS_INTERPRETER", False)
    own = specs(dtype, 256, cc)
    recorders = launches(monkeypatch, dtype, cc)
    assert {compiled(spec) for spec in own} == set().union(*(r.launches for r in recorders))
    counts = {recorder.name: recorder.num_arguments for recorder in recorders}
    for spec in own:
        name = spec.name.split()[0]
        assert counts[name] == {len(spec.signature) - len(spec.constants)}
        assert list(spec.signature) == list(spec.function.arg_names)


def test_names_are_unique() -> None:
    names = [spec.name for spec in specs(torch.float16, 256, 90)]
    assert len(names) == len(set(names)) > 10
