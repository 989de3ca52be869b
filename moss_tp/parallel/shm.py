"""Collectives between the ranks of one host, through shared memory.

Collectives are numbered: epoch 1, 2, ... A rank posts epoch k once its own part is in its slot and
it has read everything that it needs from earlier epochs:

    write own slot k % 2 ── post k ── wait for the posts of k that it needs ── read their slots
      └─ only after all ranks posted k - 1: then no rank reads epoch k - 2, which used this slot

So two slots a rank and one wait an epoch are enough. Sums are taken in fp32, as a tree of ranks, so
all ranks get the same bits. A wait spins for a while, then sleeps on a futex and regularly checks
that the rank it waits for is alive. Ranks above 0 wait for a message of rank 0 as long as it lives.
"""

import os
import select
import threading
import time
from math import inf

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moss_tp.native.dtypes import BF16, FP16, FP32
from moss_tp.native.llvm import INT_BYTES
from moss_tp.parallel.segment import SLOT_BYTES, Segment
from moss_tp.parallel.shm_kernels import copy, first_missing, publish, sum_parts

SUMMED_DTYPES = {torch.float32: FP32, torch.bfloat16: BF16, torch.float16: FP16}
# Up to this size every rank sums everything (one wait); above, each rank sums its share and reads
# the others' (two waits).
MAX_ONE_SHOT_BYTES = 1 << 16

# About 2 ms: rank 0 samples and schedules the next step in less; waking up takes 0.2 to 0.4 ms.
SPIN_CYCLES = 5_000_000
SLEEP_NS = 100_000_000  # between two checks that the peer is alive
# A sleep counts as this long at most: the process may have been stopped, or the machine asleep.
MAX_SLEEP_S = 2 * SLEEP_NS * 1e-9

Ints = NDArray[np.int64]


class SharedMemory:
    """One rank's end. Used by one thread at a time; only `close` may be called from another one.

    A wait raises RuntimeError after `timeout_s`, or when its peer is gone; the group is unusable
    then.
    """

    def __init__(self, segment: Segment, rank: int, size: int, timeout_s: float) -> None:
        self._segment = segment
        self._rank = rank
        self._size = size
        self._timeout_s = timeout_s
        self._epoch = 0
        self._last_met = 0  # the last epoch that all ranks are known to have posted
        self._sleep = np.array([0, SLEEP_NS])  # a timespec
        # Ranks that share a core would only keep each other from running by spinning.
        self._spin = SPIN_CYCLES if size <= len(os.sched_getaffinity(0)) else 0
        self._closing = threading.Lock()  # guards the two below
        self._is_closed = False
        self._processes = [os.pidfd_open(segment.pid(peer)) for peer in range(size)]

    @staticmethod
    def can_sum(x: Tensor) -> bool:
        return x.dtype in SUMMED_DTYPES

    def all_reduce(self, x: Tensor) -> None:
        """Sums `x`, of one of SUMMED_DTYPES, over the ranks, in place."""
        flat, width = x.contiguous(), x.element_size()
        length = SLOT_BYTES // width
        for start in range(0, flat.numel(), length):
            count = min(length, flat.numel() - start)
            self._sum(flat.data_ptr() + start * width, count, width, SUMMED_DTYPES[x.dtype])
        if flat is not x:
            x.copy_(flat)

    def gather(self, x: Tensor) -> list[Tensor] | None:
        """Every rank's `x` on rank 0; None elsewhere."""
        flat = x.contiguous()
        others = range(1, self._size)
        parts = [torch.empty_like(flat) for _ in others] if self._rank == 0 else []
        total = flat.numel() * flat.element_size()
        for start in range(0, total, SLOT_BYTES):
            num_bytes = min(SLOT_BYTES, total - start)
            if self._rank > 0:
                self._post(flat.data_ptr() + start, num_bytes)
                continue
            self._post()
            for rank, part in zip(others, parts, strict=True):
                self._wait(rank, rank + 1, self._epoch)
                copy(part.data_ptr() + start, self._segment.slot(rank, self._epoch), num_bytes)
        return [x, *parts] if self._rank == 0 else None

    def broadcast(self, x: Tensor) -> None:
        """Gives `x`, which has no gaps, the values that it has on rank 0."""
        total = x.numel() * x.element_size()
        for start in range(0, total, SLOT_BYTES):
            num_bytes = min(SLOT_BYTES, total - start)
            if self._rank == 0:
                self._post(x.data_ptr() + start, num_bytes)
                continue
            self._post()
            self._wait(0, 1, self._epoch)
            copy(x.data_ptr() + start, self._segment.slot(0, self._epoch), num_bytes)

    def broadcast_ints(self, values: Ints | None) -> Ints:
        """Rank 0's `values` on every rank; the others pass None."""
        if values is None:
            return self._receive()
        message = np.concatenate(([len(values)], values)).view(np.uint8)
        for start in range(0, len(message), SLOT_BYTES):
            part = message[start : start + SLOT_BYTES]
            self._post(part.ctypes.data, len(part))
        return values

    def barrier(self) -> None:
        """Returns when every rank has called it."""
        self._post()
        self._wait(0, self._size, self._epoch)

    def close(self) -> None:
        """Leaves the group: ranks that wait for this one fail. Idempotent."""
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
            for process in self._processes:
                os.close(process)
        self._segment.set_closed(self._rank)

    def _sum(self, x: int, count: int, width: int, dtype: int) -> None:
        """`count` elements of `width` bytes at the address `x`, which fit into a slot."""
        segment, size = self._segment, self._size
        self._post(x, count * width)
        self._wait(0, size, self._epoch)
        if count * width <= MAX_ONE_SHOT_BYTES:
            sum_parts(x, segment.slot(0, self._epoch), SLOT_BYTES, size, count, dtype)
            return
        share = -(-count // size)
        bounds = [min(rank * share, count) * width for rank in range(size + 1)]
        start, stop = bounds[self._rank : self._rank + 2]
        first = segment.slot(0, self._epoch) + start
        sum_parts(x + start, first, SLOT_BYTES, size, (stop - start) // width, dtype)
        self._post(x + start, stop - start)
        others = (rank for rank in range(size) if rank != self._rank)
        for rank in others:
            self._wait(rank, rank + 1, self._epoch)
            num_bytes = bounds[rank + 1] - bounds[rank]
            copy(x + bounds[rank], segment.slot(rank, self._epoch), num_bytes)

    def _receive(self) -> Ints:
        received = bytearray()
        total = INT_BYTES
        while len(received) < total:
            self._post()
            self._wait(0, 1, self._epoch, self._timeout_s if received else inf)
            slot = self._segment.slot_offset(0, self._epoch)
            if not received:
                length_bytes = self._segment.bytes[slot : slot + INT_BYTES]
                total += INT_BYTES * int(length_bytes.view(np.int64)[0])
            length = min(SLOT_BYTES, total - len(received))
            received += self._segment.bytes[slot : slot + length].data
        return np.frombuffer(received, np.int64)[1:]

    def _post(self, source: int = 0, num_bytes: int = 0) -> None:
        """Starts the next epoch: puts `num_bytes` from `source` into the own slot and posts."""
        if num_bytes and self._last_met < self._epoch:
            self._wait(0, self._size, self._epoch)
        self._epoch += 1
        slot = self._segment.slot(self._rank, self._epoch)
        publish(slot, source, num_bytes, self._segment.flag(self._rank), self._epoch)

    def _wait(self, start: int, stop: int, epoch: int, timeout_s: float | None = None) -> None:
        """Returns when ranks `start:stop` have posted `epoch`; raises RuntimeError."""
        flags = self._segment.flag(0)
        left_s = self._timeout_s if timeout_s is None else timeout_s
        missing = first_missing(flags, start, stop, epoch, self._spin, 0)
        while missing >= 0:
            before = time.monotonic()
            missing = first_missing(flags, start, stop, epoch, 0, self._sleep.ctypes.data)
            left_s -= min(time.monotonic() - before, MAX_SLEEP_S)
            if missing >= 0:
                missing = self._check_missing(missing, start, stop, epoch, left_s)
        if stop - start == self._size:
            self._last_met = epoch

    def _check_missing(self, rank: int, start: int, stop: int, epoch: int, left_s: float) -> int:
        """The first rank still missing. Raises RuntimeError if `rank` is missing for good."""
        reason = self._failure(rank, left_s)
        missing = first_missing(self._segment.flag(0), start, stop, epoch, 0, 0)
        if reason is not None and missing == rank:
            raise RuntimeError(reason)
        return int(missing)

    def _failure(self, rank: int, left_s: float) -> str | None:
        with self._closing:
            if self._is_closed:
                raise RuntimeError("the group is closed")
            # A pidfd is readable once its process has ended.
            process = select.poll()
            process.register(self._processes[rank])
            is_dead = bool(process.poll(0))
        if is_dead:
            return f"rank {rank} is gone"
        if self._segment.is_closed(rank):
            return f"rank {rank} has left the group"
        if left_s < 0:
            return f"rank {rank} has not responded for {self._timeout_s:g} s"
        return None
