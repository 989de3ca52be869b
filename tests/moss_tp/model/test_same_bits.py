"""A token's logits have the same bits however its sequence is cut into steps, and beside any other.

Through the whole model: embedding, blocks, all-reduces over either transport, last norm, LM head.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from moss_tp.config import ModelConfig
from moss_tp.kernels.reference.attention import attend
from moss_tp.kernels.reference.block import eager_kernels
from moss_tp.kernels.reference.linear import PlainLinear
from moss_tp.model import MossForCausalLM, load_model
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.weights.load import load_weights
from tests.moss_tp.parallel.test_tp_group import another
from tests.support.paged_sequences import PagedSequences
from tests.support.run_distributed import run_distributed
from tests.support.tiny_moss import make_checkpoint

# Weights and cache. The odd vocabulary is split unevenly, and rows of logits begin anywhere.
DTYPES = {
    "fp32": (torch.float32, torch.float32),
    "fp32, int8 cache": (torch.float32, torch.int8),
    "bf16": (torch.bfloat16, torch.bfloat16),
    "bf16, int8 cache": (torch.bfloat16, torch.int8),
    "fp16": (torch.float16, torch.float16),
}
SEQUENCES: Mapping[str, Sequence[int]] = {
    name: [(7 * i * i + 11 * len(name)) % 277 for i in range(length)]
    for name, length in {"a": 1, "bb": 9, "ccc": 40, "dddd": 125}.items()
}
Steps = Iterator[dict[str, Sequence[int]]]


def together() -> Steps:
    yield dict(SEQUENCES)


def one_by_one() -> Steps:
    yield from ({name: ids} for name, ids in SEQUENCES.items())


def in_chunks(size: int) -> Steps:
    """Each sequence begins a step later than the one before: a step mixes all kinds of rows."""
    longest = max(map(len, SEQUENCES.values()))
    for step in range(-(-longest // size) + len(SEQUENCES)):
        chunks: dict[str, Sequence[int]] = {}
        for lag, (name, ids) in enumerate(SEQUENCES.items()):
            start = max(0, step - lag) * size
            if step >= lag and start < len(ids):
                chunks[name] = ids[start : start + size]
        if chunks:
            yield chunks


SCHEDULES: Mapping[str, Callable[[], Steps]] = {
    "together": together,
    "one by one": one_by_one,
    "chunks of 3": lambda: in_chunks(3),
    "chunks of 17": lambda: in_chunks(17),
    "token by token": lambda: in_chunks(1),
}


Logits = dict[str, Tensor]  # (tokens, vocab_size) of every sequence


def logits_of(sequences: PagedSequences, steps: Steps) -> Logits:
    """Empty on ranks other than 0."""
    parts: dict[str, list[Tensor]] = {}
    for chunks in steps:
        if (logits := sequences.step(chunks, every_row=True)) is not None:
            start = 0
            for name, chunk in chunks.items():
                parts.setdefault(name, []).append(logits[start : start + len(chunk)])
                start += len(chunk)
    return {name: torch.cat(part) for name, part in parts.items()}


def by_schedule(model: MossForCausalLM, group: TPGroup, path: Path, dtype: str) -> list[Logits]:
    config, cache_dtype = ModelConfig.from_dir(path), DTYPES[dtype][1]
    return [
        logits_of(PagedSequences(model, config, group, dtype=cache_dtype), make_steps())
        for make_steps in SCHEDULES.values()
    ]


def over_both_transports(group: TPGroup, path: Path) -> dict[str, list[Logits]]:
    other = another(group, share_memory=False)
    config, found = ModelConfig.from_dir(path), {}
    for name, ranks in ((name, ranks) for name in DTYPES for ranks in (group, other)):
        model = load_model(path, config, ranks, DTYPES[name][0])
        transport = "memory" if ranks.shares_memory else "gloo"
        found[f"{name}, {transport}"] = by_schedule(model, ranks, path, name)
    other.close()
    return found


def assert_same_bits(found: list[Logits]) -> None:
    for schedule, logits in zip(SCHEDULES, found, strict=True):
        assert logits.keys() == SEQUENCES.keys()
        for name, ids in SEQUENCES.items():
            assert len(logits[name]) == len(ids)
            assert torch.equal(logits[name], found[0][name]), f"{schedule}: {name} differs"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    return make_checkpoint(folder, heads=12, head_dim=10, rotary_dim=6, inner=102, vocab_size=278)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_rank(dtype: str, path: Path) -> None:
    group = TPGroup.single("cpu")
    model = load_model(path, ModelConfig.from_dir(path), group, DTYPES[dtype][0])
    assert_same_bits(by_schedule(model, group, path, dtype))


def test_an_odd_head_size_in_bf16(tmp_path: Path) -> None:
    """Attention has no pairs of bf16 then."""
    group = TPGroup.single("cpu")
    path = make_checkpoint(tmp_path / "odd", heads=12, head_dim=7, rotary_dim=6)
    model = load_model(path, ModelConfig.from_dir(path), group, torch.bfloat16)
    assert_same_bits(by_schedule(model, group, path, "bf16"))


@pytest.mark.parametrize("tp_size", [2, 3])
def test_several_ranks(tp_size: int, path: Path) -> None:
    found = run_distributed(over_both_transports, tp_size, path)[0]
    assert len(found) == 2 * len(DTYPES)
    for logits in found.values():
        assert_same_bits(logits)


class CutByRows(PlainLinear):
    """Sums few rows in two halves, as a library may that has another kernel for them."""

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if len(x) >= 8:
            return super().__call__(x, residual)
        half = x.shape[1] // 2
        y = F.linear(x[:, :half], self._weight[:, :half], self._bias)
        y += F.linear(x[:, half:], self._weight[:, half:])
        y = F.gelu(y, approximate="tanh") if self._has_gelu else y
        return y if residual is None else y + residual


def test_products_that_depend_on_the_number_of_rows_are_noticed(path: Path) -> None:
    group, config = TPGroup.single("cpu"), ModelConfig.from_dir(path)
    model = MossForCausalLM(config, group, torch.float32)
    load_weights(model, path)
    model.kernels = eager_kernels(torch.float32, CutByRows, attend)
    model.pack()
    with pytest.raises(AssertionError, match="differs"):
        assert_same_bits(by_schedule(model, group, path, "fp32"))
