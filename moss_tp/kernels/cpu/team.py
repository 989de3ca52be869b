"""Runs kernels on this process's threads: torch's own pool, and as many of it as torch would use.

    program:  | number of ops | op | op | op |        each op: OP_INTS int64
    op:       | kernel | num_tasks | next | done | 4 unused | params ... |

Every thread takes tasks of the first op until none is left, waits until all of them are done,
then goes on with the second. So a program has no fixed share for a thread: one that comes late,
or lost its core to another process, holds up nobody for long. Using the pool that torch spins
anyway (GOMP_parallel of the libgomp it loaded) avoids a second one in its way. Several programs
may run at once, from different threads.
"""

import ctypes
import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from numba.np.numpy_support import carray
from torch import Tensor

from moss_tp.native.compiled import entry
from moss_tp.native.simd import (
    INT_BYTES,
    call_kernel,
    fetch_add,
    ints_at,
    load_acquire,
    relax,
    yield_core,
)

OP_INTS = 40
HEAD_INTS = 8
COUNTERS = slice(2, 4)
SPINS = 2000

Ints = npt.NDArray[np.int64]
NONE: Ints = np.empty((1, 0), np.int64)


class Program:
    """Ops to run one after the other, each on all threads; as often as wanted, on other tensors
    each time. By one thread at a time."""

    def __init__(self) -> None:
        self._ops: list[int] = []
        self._kept: list[Tensor] = []  # what the ops' addresses point into
        self._slots: dict[int, list[int]] = {}  # by address: where it stands
        self._open = np.empty(0, np.intp)  # slots,
        self._source = np.empty(0, np.intp)  # and of which tensor each holds the address
        self._rounds: Ints = np.empty((0, 0), np.int64)  # the ops, as often as they ran last

    def add(self, kernel: int, num_tasks: int, params: Sequence[int | Tensor]) -> None:
        """An op of `num_tasks`; a tensor among its params stands for its address."""
        self._ops += (kernel, num_tasks, 0, 0, 0, 0, 0, 0)
        for param in params:
            if isinstance(param, Tensor):
                self._kept.append(param)
                param = param.data_ptr()
                self._slots.setdefault(param, []).append(len(self._ops))
            self._ops.append(param)
        self._ops += [0] * (OP_INTS - HEAD_INTS - len(params))

    def leave_open(self, tensors: Sequence[Tensor]) -> None:
        """These params are placeholders: every run names what stands in for them."""
        places = [
            (slot, index)
            for index, tensor in enumerate(tensors)
            for slot in self._slots[tensor.data_ptr()]
        ]
        self._open, self._source = np.array(places, np.intp).T

    def run(self, addresses: Ints = NONE) -> None:
        """Returns when all is done, `len(addresses)` times one after the other. A row of
        `addresses` is of tensors that stand in for those left open, in their order, and are laid
        out alike."""
        if len(self._rounds) != len(addresses):
            self._write(len(addresses))
        if len(self._open):
            self._rounds[:, self._open] = addresses[:, self._source]
        self._counters[:] = 0
        _launch(self._address, torch.get_num_threads())

    def _write(self, times: int) -> None:
        """The ops, `times` over, as the threads read them."""
        memory = np.empty(1 + times * len(self._ops), np.int64)
        memory[0] = times * (len(self._ops) // OP_INTS)
        self._address = memory.ctypes.data
        self._rounds = memory[1:].reshape(times, -1)
        self._rounds[:] = self._ops
        self._counters = memory[1:].reshape(-1, OP_INTS)[:, COUNTERS]


@entry
def _work(program: int) -> None:
    num_ops = carray(ints_at(program), 1)[0]
    for index in range(num_ops):
        head = program + INT_BYTES * (1 + index * OP_INTS)
        one = carray(ints_at(head), 2)
        kernel, num_tasks = one[0], one[1]
        while True:
            task = fetch_add(head + 2 * INT_BYTES, 1)
            if task >= num_tasks:
                break
            call_kernel(kernel, head + HEAD_INTS * INT_BYTES, task)
            fetch_add(head + 3 * INT_BYTES, 1)
        spins = 0
        while load_acquire(head + 3 * INT_BYTES) < num_tasks:
            spins += 1
            if spins < SPINS:
                relax()
            else:
                yield_core()


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
