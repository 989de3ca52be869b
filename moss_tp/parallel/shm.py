"""Collectives between the ranks of one host, through memory that they share.

Collectives are numbered: turn 1, 2, ... A rank posts turn k when its own part of it lies in its
slot, and it has read all that it wants of the turns before:

    write own slot k % 2 ── post k ── await the posts of k that matter ── read their slots
      └─ only when all have posted k - 1: then nobody reads turn k - 2, which had this slot

So two slots a rank and one wait a turn are enough. Sums are taken in fp32 in the order of the
ranks: all get the same bits. A wait spins a little, then sleeps on a futex; from time to time it
looks whether the rank that it waits for is still there. It knows neither gloo nor NCCL.
"""

import os
import select
import threading
import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moss_tp.parallel.segment import SLOT_BYTES, Segment
from moss_tp.parallel.shm_kernels import BF16, FP16, FP32, add, copy, first_missing, publish

KINDS = {torch.float32: FP32, torch.bfloat16: BF16, torch.float16: FP16}
# Up to here every rank adds up everything; above, each its share, and one more wait.
ALL_ADD_BYTES = 1 << 16

# About 2 ms: rank 0 samples and schedules the next step within it; a wake-up takes 0.2 to 0.4.
SPIN_CYCLES = 5_000_000
NAP_NS = 100_000_000  # until the next look whether the peer lives
INT_BYTES = 8

Ints = NDArray[np.int64]


class SharedMemory:
    """One rank's end. Used by one thread at a time; only `close` may come from any other.

    A wait that outlasts `timeout_s`, or whose peer is gone, raises RuntimeError, and the group is
    of no more use then.
    """

    def __init__(self, segment: Segment, rank: int, size: int, timeout_s: float) -> None:
        self._segment = segment
        self._rank = rank
        self._size = size
        self._timeout_s = timeout_s
        self._turn = 0
        self._met = 0  # a turn that all are known to have posted
        self._nap = np.array([0, NAP_NS])  # a timespec
        # Ranks that must share a core gain nothing by keeping each other from it.
        self._spin = SPIN_CYCLES if size <= len(os.sched_getaffinity(0)) else 0
        self._closing = threading.Lock()  # guards the two below
        self._is_closed = False
        self._processes = [os.pidfd_open(segment.pid(peer)) for peer in range(size)]

    @staticmethod
    def can_sum(x: Tensor) -> bool:
        return x.dtype in KINDS

    def all_reduce(self, x: Tensor) -> None:
        """Sums `x`, which it can, over the ranks, in place."""
        flat, width = x.contiguous(), x.element_size()
        length = SLOT_BYTES // width
        for start in range(0, flat.numel(), length):
            count = min(length, flat.numel() - start)
            self._sum(flat.data_ptr() + start * width, count, width, KINDS[x.dtype])
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
                self._await(rank, rank + 1, self._turn)
                copy(part.data_ptr() + start, self._segment.slot(rank, self._turn), num_bytes)
        return [x, *parts] if self._rank == 0 else None

    def broadcast_ints(self, values: Ints | None) -> Ints:
        """Rank 0's `values`, on every rank; the others pass None."""
        if values is None:
            return self._receive()
        message = np.concatenate(([len(values)], values)).view(np.uint8)
        for start in range(0, len(message), SLOT_BYTES):
            piece = message[start : start + SLOT_BYTES]
            self._post(piece.ctypes.data, len(piece))
        return values

    def barrier(self) -> None:
        """Returns when every rank is here."""
        self._post()
        self._await(0, self._size, self._turn)

    def close(self) -> None:
        """Leaves: whoever waits for this rank fails. Idempotent."""
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
            for process in self._processes:
                os.close(process)
        self._segment.set_closed(self._rank)

    def _sum(self, x: int, count: int, width: int, kind: int) -> None:
        """`count` elements at the address `x`, which fit a slot."""
        segment, size = self._segment, self._size
        self._post(x, count * width)
        self._await(0, size, self._turn)
        if count * width <= ALL_ADD_BYTES:
            add(x, segment.slot(0, self._turn), SLOT_BYTES, size, count, kind)
            return
        share = -(-count // size)
        bounds = [min(rank * share, count) * width for rank in range(size + 1)]
        start, stop = bounds[self._rank : self._rank + 2]
        first = segment.slot(0, self._turn) + start
        add(x + start, first, SLOT_BYTES, size, (stop - start) // width, kind)
        self._post(x + start, stop - start)
        for rank in (rank for rank in range(size) if rank != self._rank):
            self._await(rank, rank + 1, self._turn)
            num_bytes = bounds[rank + 1] - bounds[rank]
            copy(x + bounds[rank], segment.slot(rank, self._turn), num_bytes)

    def _receive(self) -> Ints:
        received = bytearray()
        total = INT_BYTES
        while len(received) < total:
            self._post()
            self._await(0, 1, self._turn)
            slot = self._segment.slot_offset(0, self._turn)
            if not received:
                head = self._segment.bytes[slot : slot + INT_BYTES]
                total += INT_BYTES * int(head.view(np.int64)[0])
            length = min(SLOT_BYTES, total - len(received))
            received += self._segment.bytes[slot : slot + length].data
        return np.frombuffer(received, np.int64)[1:]

    def _post(self, source: int = 0, num_bytes: int = 0) -> None:
        """Takes the next turn, with what is at the address `source`."""
        if num_bytes and self._met < self._turn:
            self._await(0, self._size, self._turn)
        self._turn += 1
        slot = self._segment.slot(self._rank, self._turn)
        publish(slot, source, num_bytes, self._segment.flag(self._rank), self._turn)

    def _await(self, start: int, stop: int, turn: int) -> None:
        """Returns when ranks `start:stop` have posted `turn`."""
        flags = self._segment.flag(0)
        missing = first_missing(flags, start, stop, turn, self._spin, 0)
        deadline = time.monotonic() + self._timeout_s
        while missing >= 0:
            missing = first_missing(flags, start, stop, turn, 0, self._nap.ctypes.data)
            if missing >= 0:
                missing = self._look_for(missing, start, stop, turn, deadline)
        if stop - start == self._size:
            self._met = turn

    def _look_for(self, rank: int, start: int, stop: int, turn: int, deadline: float) -> int:
        """The first missing, if `rank`, which was, has come meanwhile or may still come."""
        reason = self._reason_to_give_up(rank, deadline)
        missing = first_missing(self._segment.flag(0), start, stop, turn, 0, 0)
        if reason is not None and missing == rank:
            raise RuntimeError(reason)
        return int(missing)

    def _reason_to_give_up(self, rank: int, deadline: float) -> str | None:
        with self._closing:
            if self._is_closed:
                raise RuntimeError("the group is closed")
            # A process's handle is readable once it has ended.
            process = select.poll()
            process.register(self._processes[rank])
            is_dead = bool(process.poll(0))
        if is_dead:
            return f"rank {rank} is gone"
        if self._segment.is_closed(rank):
            return f"rank {rank} has left the group"
        if time.monotonic() > deadline:
            return f"no word from rank {rank} for {self._timeout_s:g} s"
        return None
