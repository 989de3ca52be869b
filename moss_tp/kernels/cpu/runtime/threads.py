"""Runs a program's ops on the threads of torch's own pool.

    program:  | ProgramHeader | op | op | ... | taken | taken | ... |
    op:       | OpHeader | params ... |                       OP_INTS int64
    taken:    how many tasks of each share are taken          num_threads int64, one array an op

Each thread has a share of an op's tasks: neighbouring ones, so that it reads memory in sequence.
A thread that finishes its share helps the others, waits until all tasks are done, then starts the
next op. So a thread that comes late, or has lost its core, delays the others only briefly. Using
the pool that torch keeps spinning anyway (GOMP_parallel of the libgomp that it loaded) avoids a
second pool that would compete with it.
"""

import ctypes
import threading
from collections.abc import Callable
from typing import NamedTuple

from moss_tp.native.atomics import fetch_add, load_acquire, relax, yield_core
from moss_tp.native.compiled import inner, thread_main
from moss_tp.native.llvm import INT_BYTES
from moss_tp.native.memory import call_kernel
from moss_tp.native.params import num_bytes, params_reader


class ProgramHeader(NamedTuple):
    num_ops: int
    num_threads: int
    arrived: int  # threads that have started


class OpHeader(NamedTuple):
    kernel: int  # address
    num_tasks: int
    done: int  # tasks
    padding: int = 0


OP_INTS = 40
PROGRAM_INTS = len(ProgramHeader._fields)
ARRIVED, DONE = ProgramHeader._fields.index("arrived"), OpHeader._fields.index("done")
SPINS = 2000

_PROGRAM_BYTES, _OP_BYTES = num_bytes(ProgramHeader), OP_INTS * INT_BYTES
_OP_HEADER_BYTES = num_bytes(OpHeader)
_read_program, _read_op = params_reader(ProgramHeader), params_reader(OpHeader)


@inner
def _run_share(op: int, taken: int, share: int, num_shares: int) -> None:
    """Runs the tasks of a share that are not taken yet."""
    header = _read_op(op)
    first = header.num_tasks * share // num_shares
    stop = header.num_tasks * (share + 1) // num_shares
    while True:
        task = first + fetch_add(taken + share * INT_BYTES, 1)
        if task >= stop:
            break
        call_kernel(header.kernel, op + _OP_HEADER_BYTES, task)
        fetch_add(op + DONE * INT_BYTES, 1)


@inner
def _wait_until_done(op: int) -> None:
    num_tasks, spins = _read_op(op).num_tasks, 0
    while load_acquire(op + DONE * INT_BYTES) < num_tasks:
        spins += 1
        if spins < SPINS:
            relax()
        else:
            yield_core()


@thread_main
def _worker(program: int) -> None:
    header = _read_program(program)
    num_ops, num_threads = header.num_ops, header.num_threads
    own = fetch_add(program + ARRIVED * INT_BYTES, 1)
    op = program + _PROGRAM_BYTES
    taken = op + num_ops * _OP_BYTES
    for _ in range(num_ops):
        for i in range(num_threads):
            _run_share(op, taken, (own + i) % num_threads, num_threads)
        _wait_until_done(op)
        op += _OP_BYTES
        taken += num_threads * INT_BYTES


_run_worker = ctypes.CFUNCTYPE(None, ctypes.c_int64)(_worker)


def _find_launch() -> Callable[[int, int], None]:
    try:
        parallel = ctypes.CDLL("libgomp.so.1").GOMP_parallel
    except (OSError, AttributeError):  # another OpenMP than GNU's
        return _launch_threads
    parallel.argtypes = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint, ctypes.c_uint)
    parallel.restype = None

    def launch(program: int, num_threads: int) -> None:
        if num_threads == 1:
            _run_worker(program)
        else:
            parallel(_worker, program, num_threads, 0)

    return launch


def _launch_threads(program: int, num_threads: int) -> None:
    threads = [
        threading.Thread(target=_run_worker, args=(program,)) for _ in range(num_threads - 1)
    ]
    for thread in threads:
        thread.start()
    _run_worker(program)
    for thread in threads:
        thread.join()


# `launch(program, num_threads)` runs the program at that address and returns when it is done.
launch = _find_launch()
