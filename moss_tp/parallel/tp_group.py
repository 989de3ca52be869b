"""The tensor-parallel group: every collective of the project, each counted.

    rank 0: store = TPGroup.listen(host)     (host, store.port) goes to the other ranks
    all:    TPGroup.join(rank, size, (host, port), device, timeout_s)   at the same time

A group is an object, never a global: a process may be in several. Tensors on CUDA go over NCCL.
Tensors on CPU and control messages (ints) go through shared memory when all ranks are on one
host, else over gloo.
"""

import platform
import socket
import sys
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, unstubbed
from torch.distributed.distributed_c10d import PrefixStore, Store

from moss_tp.parallel.backends import Backend, gloo_backend, indexed_device, nccl_backend
from moss_tp.parallel.ordered_sum import ordered_all_reduce

if TYPE_CHECKING:
    from moss_tp.parallel.shm import SharedMemory

R = TypeVar("R")
Ints = NDArray[np.int64]

# Ints in gloo's first broadcast of a control message: the message's length, then as many of its
# values as fit. Enough for a step of 64 decodes with short block tables.
CONTROL_INTS = 2048


class TPGroup:
    """This process's end, `rank`, of a group of `size` ranks, with its tensors on `device`.

    `counts` counts collectives by name; a group of one makes none. A collective raises
    RuntimeError when it times out or a peer is gone; the group is unusable afterwards.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        device: torch.device,
        control: Backend | None = None,
        data: Backend | None = None,
        store: Store | None = None,
        shared: "SharedMemory | None" = None,
    ) -> None:
        self.rank = rank
        self.size = size
        self.device = device
        self.counts: Counter[str] = Counter()
        self._control = control
        self._data = data
        self._store = store  # NCCL reads it as long as the group lives
        self._shared = shared

    @property
    def shares_memory(self) -> bool:
        """Whether all ranks are on one host and communicate through shared memory on CPU."""
        return self._shared is not None

    @classmethod
    def single(cls, device: str | torch.device) -> Self:
        """A group of one."""
        return cls(0, 1, torch.device(device))

    @staticmethod
    def listen(host: str) -> TCPStore:
        """Rank 0's rendezvous store on a free port of `host`; the port is its `.port`.

        Call it in the process that joins as rank 0, and keep it until all ranks have joined.
        """
        # By default the store would listen on every interface, and it does not authenticate.
        listener = socket.create_server((host, 0))
        return TCPStore(
            host,
            listener.getsockname()[1],
            is_master=True,
            wait_for_workers=False,
            multi_tenant=True,  # join() on rank 0 uses this server instead of binding again
            master_listen_fd=listener.detach(),
        )

    @classmethod
    def join(
        cls,
        rank: int,
        size: int,
        address: tuple[str, int],
        device: str | torch.device,
        timeout_s: float,
        *,
        share_memory: bool = True,
    ) -> Self:
        """Joins the ranks that meet at `address`.

        `timeout_s` limits how long they may take, and every later collective. Memory is shared
        when every rank has `share_memory` set and can. Raises RuntimeError.
        """
        torch_device = indexed_device(device)
        timeout = timedelta(seconds=timeout_s)
        store = _connect_store(address, rank, timeout)
        control = gloo_backend(PrefixStore("control", store), rank, size, address, timeout)
        data = control
        if torch_device.type == "cuda":
            torch.cuda.set_device(torch_device)
            data = nccl_backend(PrefixStore("data", store), rank, size, timeout)
        shared = None
        if _all_agree(control, share_memory and _has_ordered_stores()):
            shared = _share(PrefixStore("memory", store), rank, size, timeout_s, control)
        group = cls(rank, size, torch_device, control, data, store, shared)
        group.all_reduce(torch.zeros(1, device=torch_device))  # NCCL connects lazily
        group.counts.clear()
        return group

    def all_reduce(self, x: Tensor) -> Tensor:
        """Sums `x` over the ranks, in place; returns it. On CPU an element's sum is taken in rank
        order, so its bits do not depend on the shape of `x`."""
        if self._data is None:
            return x
        if self._shared is not None and x.is_cpu and self._shared.can_sum(x):
            self._run("all_reduce", self._shared.all_reduce, x)
        elif x.is_cpu and x.is_floating_point():
            self._run("all_reduce", ordered_all_reduce, self._data, self.size, x)
        else:
            self._run_backend("all_reduce", self._data.allreduce, [x])
        return x

    def gather(self, x: Tensor) -> list[Tensor] | None:
        """Every rank's `x` in rank order on rank 0, None elsewhere. All have the same shape."""
        if self._data is None:
            return [x]
        if self._shared is not None and x.is_cpu:
            return self._run("gather", self._shared.gather, x)
        parts = [torch.empty_like(x) for _ in range(self.size)] if self.rank == 0 else None
        options = dist.GatherOptions()
        options.rootRank = 0
        outputs = [] if parts is None else [parts]
        self._run_backend("gather", self._data.gather, outputs, [x.contiguous()], options)
        return parts

    def broadcast_ints(self, values: Ints | None) -> Ints:
        """Rank 0's `values (N,)` on every rank. The other ranks pass None."""
        if self._control is None:
            return np.empty(0, np.int64) if values is None else values
        if self._shared is not None:
            return self._run("broadcast", self._shared.broadcast_ints, values)
        head = np.zeros(CONTROL_INTS, np.int64)
        if values is not None:
            start = values[: CONTROL_INTS - 1]
            head[0], head[1 : 1 + len(start)] = len(values), start
        self._broadcast(torch.from_numpy(head))
        missing = int(head[0]) - (CONTROL_INTS - 1)
        if missing <= 0:
            return head[1 : 1 + int(head[0])]
        tail = np.zeros(missing, np.int64) if values is None else values[-missing:].copy()
        self._broadcast(torch.from_numpy(tail))
        return np.concatenate((head[1:], tail))

    def barrier(self) -> None:
        """Returns when every rank has called it."""
        if self._shared is not None:
            self._run("barrier", self._shared.barrier)
        elif self._control is not None:
            self._run_backend("barrier", self._control.barrier)

    def close(self) -> None:
        """Leaves the group: the peers' next collective fails. Idempotent."""
        if self._shared is not None:
            self._shared.close()
        for backend in (self._control, self._data):
            if backend is not None:
                backend.shutdown()
        self._control = self._data = self._store = self._shared = None

    def _broadcast(self, x: Tensor) -> None:
        assert self._control is not None
        options = dist.BroadcastOptions()
        options.rootRank = 0
        options.rootTensor = 0
        self._run_backend("broadcast", self._control.broadcast, [x], options)

    def _run(self, name: str, collective: Callable[..., R], *args: Any) -> R:
        self.counts[name] += 1
        return collective(*args)

    def _run_backend(self, name: str, collective: Callable[..., Any], *args: Any) -> None:
        self._run(name, collective, *args).wait()


def _connect_store(address: tuple[str, int], rank: int, timeout: timedelta) -> TCPStore:
    """The store that rank 0 listens on."""
    return TCPStore(
        *address,
        is_master=rank == 0,
        timeout=timeout,
        wait_for_workers=False,
        multi_tenant=True,
    )


def _has_ordered_stores() -> bool:
    """Whether cores see each other's stores in order (x86) and futexes exist (Linux)."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def _share(
    store: Store, rank: int, size: int, timeout_s: float, control: Backend
) -> "SharedMemory | None":
    # Imported here, since it compiles kernels, and works on such machines only.
    from moss_tp.parallel.shm_join import join_shared_memory

    return join_shared_memory(store, rank, size, timeout_s, partial(_all_agree, control))


def _all_agree(control: Backend, vote: bool) -> bool:
    """Whether every rank votes True; the answer is the same on every rank."""
    votes = torch.tensor([vote], dtype=torch.int32)
    options: Any = dist.AllreduceOptions()
    options.reduceOp = dist.ReduceOp.MIN
    control.allreduce([votes], options).wait()
    return bool(votes.item())
