"""A program: ops that run one after the other, each as tasks on all threads.

Built once from Python, run as often as wanted: each run takes the addresses of the tensors that
are declared as inputs. Several programs may run at the same time, from different Python threads.
How threads share the tasks is in `threads`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moss_tp.kernels.cpu.runtime import threads
from moss_tp.kernels.cpu.runtime.threads import ARRIVED, DONE, OP_INTS, PROGRAM_INTS

Ints = npt.NDArray[np.int64]
NO_INPUTS: Ints = np.empty((1, 0), np.int64)


class Program:
    """Used by one thread at a time."""

    def __init__(self) -> None:
        self._ops: list[int] = []
        self._operands: list[tuple[int, Tensor | Ints]] = []  # where in _ops each one's address is
        self._input_places = np.empty(0, np.intp)  # in _ops
        self._input_numbers = np.empty(0, np.intp)  # which input belongs there
        self._written = (0, 0)  # for how many repeats and threads

    def add(self, kernel: int, num_tasks: int, *params: Sequence[Any]) -> None:
        """An op of `num_tasks`. `params` are ints, and tensors and arrays, which stay alive with
        the program and are passed to the kernel by address; see `moss_tp.native.params`."""
        op = [kernel, num_tasks, 0, 0]
        for value in (value for record in params for value in record):
            address = _address_of(value)
            if address is not None:
                self._operands.append((len(self._ops) + len(op), value))
            op.append(value if address is None else address)
        assert len(op) <= OP_INTS
        self._ops += op + [0] * (OP_INTS - len(op))

    def declare_inputs(self, tensors: Sequence[Tensor]) -> None:
        """Every run replaces these, in this order, by others of the same layout. Those that are one
        tensor now must be one in every run."""
        numbers = {tensor.data_ptr(): number for number, tensor in enumerate(tensors)}
        found = [
            (place, numbers[address])
            for place, operand in self._operands
            if (address := _address_of(operand)) in numbers
        ]
        self._input_places, self._input_numbers = np.array(found, np.intp).reshape(-1, 2).T
        self._operands = [(p, o) for p, o in self._operands if _address_of(o) not in numbers]

    def run(self, addresses: Ints = NO_INPUTS) -> None:
        """Runs all ops once for each row of `addresses` (repeats, inputs), one repeat after the
        other; returns when all are done."""
        num_threads = torch.get_num_threads()
        if self._written != (len(addresses), num_threads):
            self._write(len(addresses), num_threads)
        if len(self._input_places):
            self._repeats[:, self._input_places] = addresses[:, self._input_numbers]
        self._memory[ARRIVED] = 0
        self._done[:] = 0
        self._taken[:] = 0
        threads.launch(self._address, num_threads)

    def _write(self, repeats: int, num_threads: int) -> None:
        """The ops, `repeats` times over, as the threads read them."""
        num_ops = repeats * (len(self._ops) // OP_INTS)
        end = PROGRAM_INTS + num_ops * OP_INTS
        self._memory = np.empty(end + num_ops * num_threads, np.int64)
        self._memory[:ARRIVED] = num_ops, num_threads
        self._repeats = self._memory[PROGRAM_INTS:end].reshape(repeats, -1)
        self._repeats[:] = self._ops
        self._done = self._memory[PROGRAM_INTS:end].reshape(-1, OP_INTS)[:, DONE]
        self._taken = self._memory[end:]
        self._address = self._memory.ctypes.data
        self._written = (repeats, num_threads)


def _address_of(value: Any) -> int | None:
    """None for an int."""
    if isinstance(value, Tensor):
        return value.data_ptr()
    return int(value.ctypes.data) if isinstance(value, np.ndarray) else None
