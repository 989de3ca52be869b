"""What is compiled ahead of time is what the sampler launches, however large its steps are."""

from random import Random

import numpy as np
import pytest
import torch

from moss_tp.kernels.cuda.runtime.source import Source
from moss_tp.kernels.cuda.runtime.switch import interpreted
from moss_tp.kernels.cuda.sampling import ids, sample
from moss_tp.kernels.cuda.sampling.device_sampler import DeviceSampler
from moss_tp.kernels.cuda.sampling.specs import VOCAB_SIZE, specs
from tests.moss_tp.kernels.cuda.recorded import assert_compiled, distinct, record
from tests.moss_tp.kernels.cuda.sampling.random_rows import random_row

STEPS = ("append", "process", "groups", "candidates", "masses", "best", "vocab")
KERNELS = (*((sample, f"{name}_kernel") for name in STEPS), (ids, "take_ids_kernel"))


def launches(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, *sizes: int, vocab_size: int = VOCAB_SIZE
) -> list[Source]:
    """Of samplers for up to so many rows of logits."""
    found = record(monkeypatch, 90, *KERNELS)
    for rows in sizes:
        launch = DeviceSampler(vocab_size, rows, 1, torch.device("cpu"), lambda work: work())
        block = np.zeros(launch.num_ints, np.int32)
        launch.encode([random_row(Random(0), vocab_size)], block, 1)
        with interpreted():
            ids.take_ids(torch.zeros(rows, dtype=torch.int32), launch.token_ids)
            launch.sample(torch.zeros(1, vocab_size, dtype=dtype), torch.from_numpy(block))
    return found


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_all_that_is_launched(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_compiled(specs(dtype, 256, 90), launches(monkeypatch, dtype, 1, 2, 7, 16), 90)


def test_another_vocabulary_is_another_program(monkeypatch: pytest.MonkeyPatch) -> None:
    found = launches(monkeypatch, torch.float32, 1)
    monkeypatch.undo()
    other = launches(monkeypatch, torch.float32, 1, vocab_size=VOCAB_SIZE - 1)
    assert len(distinct([*found, *other])) > len(distinct(found)) == len(KERNELS)
