"""Programs of a small kernel on any number of threads, and the pool that keeps programs."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
import torch

from moss_tp.kernels.cpu.runtime import threads
from moss_tp.kernels.cpu.runtime.pool import ProgramPool
from moss_tp.kernels.cpu.runtime.program import Program
from moss_tp.native.compiled import kernel
from moss_tp.native.memory import int64_at
from moss_tp.native.params import Address, params_reader
from moss_tp.native.sources import register_sources

register_sources(__file__)
COUNT = 100


class AddParams(NamedTuple):
    source: Address
    out: Address
    increment: int


_read_params = params_reader(AddParams)


@kernel
def add_increment(params: int, task: int) -> None:
    p = _read_params(params)
    int64_at(p.out)[task] = int64_at(p.source)[task] + p.increment


@pytest.fixture(params=[1, 2, 5])
def num_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def two_ops() -> tuple[Program, torch.Tensor, torch.Tensor, torch.Tensor]:
    """`out = (source + 1) + 10`, with the tensors source, between and out."""
    source, between, out = torch.arange(COUNT), torch.zeros(COUNT), torch.zeros(COUNT)
    between, out = between.long(), out.long()
    program = Program()
    program.add(add_increment, COUNT, AddParams(source, between, 1))
    program.add(add_increment, COUNT, AddParams(between, out, 10))
    return program, source, between, out


@pytest.mark.usefixtures("num_threads")
def test_ops_run_one_after_the_other() -> None:
    program, source, _, out = two_ops()
    for start in (0, 7):
        source.copy_(torch.arange(start, start + COUNT))
        program.run()
        assert torch.equal(out, source + 11)


@pytest.mark.usefixtures("num_threads")
def test_repeats_take_their_own_inputs() -> None:
    """Each repeat reads what the one before has written."""
    program, source, _, out = two_ops()
    program.declare_inputs((source, out))
    buffers = [torch.zeros(COUNT).long() for _ in range(4)]
    addresses = [buffer.data_ptr() for buffer in buffers]
    program.run(np.array([addresses[:2], addresses[1:3], addresses[2:]]))
    assert [int(buffer[0]) for buffer in buffers] == [0, 11, 22, 33]
    assert torch.equal(out, torch.zeros(COUNT).long())


def test_threads_without_gnu_openmp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "launch", threads._launch_threads)
    program, source, _, out = two_ops()
    program.run()
    assert torch.equal(out, source + 11)


def test_a_taken_program_is_out_of_the_pool() -> None:
    pool = ProgramPool[str]()
    pool.put("key", "program", 1)
    assert pool.take("other", 1) is None
    assert pool.take("key", 1) == "program"
    assert pool.take("key", 1) is None


def test_the_pool_drops_the_oldest_beyond_its_rows() -> None:
    pool = ProgramPool[str](max_rows=10)
    for name, rows in (("a", 4), ("b", 5), ("c", 3)):
        pool.put(name, name, rows)
    assert [pool.take(name, 1) for name in "abc"] == [None, "b", "c"]


def test_the_pool_makes_room_before_a_program_is_built() -> None:
    pool = ProgramPool[str](max_rows=10)
    pool.put("a", "a", 4)
    pool.put("b", "b", 5)
    assert pool.take("c", 4) is None
    assert pool.take("a", 1) is None
    assert pool.take("b", 5) == "b"


def test_the_pool_keeps_the_last_program_however_large() -> None:
    pool = ProgramPool[str](max_rows=10)
    pool.put("small", "small", 1)
    pool.put("large", "large", 2000)
    assert pool.take("large", 2000) == "large"
    assert pool.take("small", 1) is None
