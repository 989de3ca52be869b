"""Runs kernels on this process's threads: torch's own pool, and as many of it as torch would use.

    program:  | num_ops | num_threads | arrived | op | op | op | taken | taken | taken |
    op:       | kernel | num_tasks | done | unused | params ... |      OP_INTS int64
    taken:    how many tasks of each share are taken                   num_threads int64

Every thread has a share of an op's tasks, side by side, so that it reads memory on and on. When
none of them is left it helps the others with theirs, waits until all are done, then goes on with
the next op: one that comes late, or lost its core to another process, holds up nobody for long.
Using the pool that torch spins anyway (GOMP_parallel of the libgomp it loaded) avoids a second
one in its way. Several programs may run at once, from different threads.
"""

import ctypes
import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from numba.np.numpy_support import carray
from torch import Tensor

from moss_tp.native.compiled import entry, inner
from moss_tp.native.simd import (
    INT_BYTES,
    call_kernel,
    fetch_add,
    ints_at,
    load_acquire,
    relax,
    yield_core,
)

PROGRAM_INTS = 3
OP_INTS = 40
HEAD_INTS = 4
ARRIVED, DONE = 2, 2  # of the program's ints, of an op's
SPINS = 2000

Ints = npt.NDArray[np.int64]
NONE: Ints = np.empty((1, 0), np.int64)


class Program:
    """Ops to run one after the other, each on all threads; as often as wanted, on other tensors
    each time. By one thread at a time."""

    def __init__(self) -> None:
        self._ops: list[int] = []
        self._kept: list[Tensor] = []  # what the ops' addresses point into
        self._open = np.empty(0, np.intp)  # which of the ops' ints,
        self._source = np.empty(0, np.intp)  # and of which tensor each holds the address
        self._written = (0, 0)  # for how many rounds and threads

    def add(self, kernel: int, num_tasks: int, params: Sequence[int | Tensor]) -> None:
        """An op of `num_tasks`; a tensor among its params stands for its address."""
        assert len(params) <= OP_INTS - HEAD_INTS
        self._kept += [param for param in params if isinstance(param, Tensor)]
        ints = [param.data_ptr() if isinstance(param, Tensor) else param for param in params]
        self._ops += (kernel, num_tasks, 0, 0, *ints, *[0] * (OP_INTS - HEAD_INTS - len(ints)))

    def leave_open(self, tensors: Sequence[Tensor]) -> None:
        """These params are placeholders: every run names what stands in for them."""
        addresses = np.array([tensor.data_ptr() for tensor in tensors])
        self._open, self._source = np.nonzero(np.array(self._ops)[:, None] == addresses)

    def run(self, addresses: Ints = NONE) -> None:
        """Returns when all is done, `len(addresses)` times one after the other. A row of
        `addresses` is of tensors that stand in for those left open, in their order, and are laid
        out alike."""
        num_threads = torch.get_num_threads()
        if self._written != (len(addresses), num_threads):
            self._write(len(addresses), num_threads)
        if len(self._open):
            self._rounds[:, self._open] = addresses[:, self._source]
        self._memory[ARRIVED] = 0
        self._done[:] = 0
        self._taken[:] = 0
        _launch(self._address, num_threads)

    def _write(self, rounds: int, num_threads: int) -> None:
        """The ops, `rounds` times over, as the threads read them."""
        num_ops = rounds * (len(self._ops) // OP_INTS)
        end = PROGRAM_INTS + num_ops * OP_INTS
        self._memory = np.empty(end + num_ops * num_threads, np.int64)
        self._memory[:ARRIVED] = num_ops, num_threads
        self._rounds = self._memory[PROGRAM_INTS:end].reshape(rounds, -1)
        self._rounds[:] = self._ops
        self._done = self._memory[PROGRAM_INTS:end].reshape(-1, OP_INTS)[:, DONE]
        self._taken = self._memory[end:]
        self._address = self._memory.ctypes.data
        self._written = (rounds, num_threads)


@inner
def _do_share(op: int, taken: int, share: int, num_shares: int) -> None:
    """What is left of it."""
    head = carray(ints_at(op), HEAD_INTS)
    kernel, num_tasks = head[0], head[1]
    first, stop = num_tasks * share // num_shares, num_tasks * (share + 1) // num_shares
    while True:
        task = first + fetch_add(taken + share * INT_BYTES, 1)
        if task >= stop:
            break
        call_kernel(kernel, op + HEAD_INTS * INT_BYTES, task)
        fetch_add(op + DONE * INT_BYTES, 1)


@inner
def _await(op: int) -> None:
    """Until all of its tasks are done, whoever does them."""
    num_tasks, spins = ints_at(op)[1], 0
    while load_acquire(op + DONE * INT_BYTES) < num_tasks:
        spins += 1
        if spins < SPINS:
            relax()
        else:
            yield_core()


@entry
def _work(program: int) -> None:
    head = carray(ints_at(program), PROGRAM_INTS)
    num_ops, num_threads = head[0], head[1]
    own = fetch_add(program + ARRIVED * INT_BYTES, 1)
    op = program + PROGRAM_INTS * INT_BYTES
    taken = op + num_ops * OP_INTS * INT_BYTES
    for _ in range(num_ops):
        for i in range(num_threads):
            _do_share(op, taken, (own + i) % num_threads, num_threads)
        _await(op)
        op += OP_INTS * INT_BYTES
        taken += num_threads * INT_BYTES


_work_here = ctypes.CFUNCTYPE(None, ctypes.c_int64)(_work)


def _find_launch() -> Callable[[int, int], None]:
    try:
        parallel = ctypes.CDLL("libgomp.so.1").GOMP_parallel
    except (OSError, AttributeError):  # another system's OpenMP
        return _launch_threads
    parallel.argtypes = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint, ctypes.c_uint)
    parallel.restype = None

    def launch(program: int, num_threads: int) -> None:
        if num_threads == 1:
            _work_here(program)
        else:
            parallel(_work, program, num_threads, 0)

    return launch


def _launch_threads(program: int, num_threads: int) -> None:
    threads = [threading.Thread(target=_work_here, args=(program,)) for _ in range(num_threads - 1)]
    for thread in threads:
        thread.start()
    _work_here(program)
    for thread in threads:
        thread.join()


_launch = _find_launch()
