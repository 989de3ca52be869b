"""The tensor-parallel group: every collective of the project, each counted.

    rank 0: store = TPGroup.listen(host)     (host, store.port) goes to the other ranks
    all:    TPGroup.join(rank, size, (host, port), device, timeout_s)   at the same time

A group is an object, never a global: a process may be in several. Tensors on CUDA go over NCCL, on
the current stream, so that a CUDA graph can record them; ranks that are on one GPU copy them to the
host instead. Tensors on CPU and control messages (ints) go through shared memory when all ranks are
on one host, else over gloo.
"""

import socket
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

from moss_tp.parallel.backends import (
    Backend,
    gloo_backend,
    indexed_device,
    nccl_backend,
    on_current_stream,
    wait_for,
)
from moss_tp.parallel.deadline import end, poll, within
from moss_tp.parallel.joining import connect_store, have_gpus_of_their_own, shared_memory
from moss_tp.parallel.ordered_sum import ONE_SHOT_BYTES, OrderedSum

if TYPE_CHECKING:
    from moss_tp.parallel.shm import SharedMemory

R = TypeVar("R")
Ints = NDArray[np.int64]

# Ints in gloo's first broadcast of a control message: the message's length, then as many of its
# values as fit. Enough for a step of 64 decodes with short block tables.
CONTROL_INTS = 2048
SUMMED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class TPGroup:
    """This process's end, `rank`, of a group of `size` ranks, with its tensors on `device`.

    `control` is for tensors of the host, `data` for those of the device; None: they are copied to
    the host. `shared` is memory for control messages, `tensors` for tensors of the host; two, since
    a step that runs later than it is queued is not in order with messages. `counts` counts
    collectives by name; a group of one makes none. A collective raises RuntimeError when it times
    out or a peer is gone; the group is unusable afterwards. Over NCCL it does neither, it only
    orders what the device does: whoever waits for the device has to do it with a deadline.
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
        tensors: "SharedMemory | None" = None,
    ) -> None:
        self.rank = rank
        self.size = size
        self.device = device
        self.counts: Counter[str] = Counter()
        self._control = control
        self._data = data
        self._sum = OrderedSum(control if data is None else data, size)
        self._store = store  # NCCL reads it as long as the group lives
        self._shared = shared
        self._tensors = tensors
        self._drops: list[Callable[[], None]] = []

    @property
    def shares_memory(self) -> bool:
        """Whether all ranks are on one host and communicate through shared memory on CPU."""
        return self._shared is not None

    @property
    def can_be_recorded(self) -> bool:
        """Whether a CUDA graph can record collectives of the device's tensors."""
        return self._control is None or self._data is not None

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
        place, timeout = indexed_device(device), timedelta(seconds=timeout_s)
        store = connect_store(address, rank, timeout)
        control = gloo_backend(PrefixStore("control", store), rank, size, address, timeout)
        share = partial(shared_memory, rank=rank, size=size, timeout_s=timeout_s, control=control)
        shared = share(PrefixStore("messages", store), is_willing=share_memory)
        data: Backend | None = control
        if place.type == "cuda":
            torch.cuda.set_device(place)
            data = None
            if have_gpus_of_their_own(store, rank, size, place):
                data = nccl_backend(PrefixStore("data", store), rank, size, timeout)
        uses_host = data is None or data is control
        tensors = share(PrefixStore("tensors", store), is_willing=share_memory and uses_host)
        group = cls(rank, size, place, control, data, store, shared, tensors)
        try:
            group._connect(timeout_s)
        except BaseException:
            group.close()
            raise
        return group

    def reserve(self, num_elements: int, dtype: torch.dtype) -> None:
        """Has all later sums over ranks on the device use one block of memory, which is enough for
        `num_elements`; larger ones raise RuntimeError. See `ordered_sum.scratch_bytes`."""
        if self._data is not None:
            self._sum.reserve(num_elements, dtype, self.device)

    def all_reduce(self, x: Tensor) -> Tensor:
        """Sums `x` over the ranks, in place; returns it. An element's sum is taken as a tree of
        ranks and rounded once, so its bits do not depend on the shape of `x`."""
        if self._control is None:
            return x
        if self._is_staged(x):
            return x.copy_(self.all_reduce(x.cpu()))
        if self._tensors is not None and x.is_cpu and self._tensors.can_sum(x):
            self._run("all_reduce", self._tensors.all_reduce, x)
        elif x.dtype in SUMMED_DTYPES and self._backend_of(x) is self._sum.backend:
            self._run("all_reduce", self._sum, x)
        else:
            options = on_current_stream(dist.AllreduceOptions())
            self._run_backend("all_reduce", self._backend_of(x).allreduce, [x], options)
        return x

    def gather(self, x: Tensor) -> list[Tensor] | None:
        """Every rank's `x` in rank order on rank 0, None elsewhere. All have the same shape."""
        if self._control is None:
            return [x]
        if self._is_staged(x):
            staged = self.gather(x.cpu())
            return None if staged is None else [part.to(x.device) for part in staged]
        if self._tensors is not None and x.is_cpu:
            return self._run("gather", self._tensors.gather, x)
        parts = list(x.new_empty(self.size, *x.shape).unbind()) if self.rank == 0 else None
        options = on_current_stream(dist.GatherOptions())
        options.rootRank = 0
        outputs = [] if parts is None else [parts]
        gather = self._backend_of(x).gather
        self._run_backend("gather", gather, outputs, [x.contiguous()], options)
        return parts

    def broadcast(self, x: Tensor) -> Tensor:
        """Gives `x` the values that it has on rank 0; returns it. All have the same shape, without
        gaps."""
        if self._control is None:
            return x
        if self._is_staged(x):
            return x.copy_(self.broadcast(x.cpu()))
        if self._tensors is not None and x.is_cpu:
            self._run("broadcast", self._tensors.broadcast, x)
        else:
            self._broadcast(x)
        return x

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

    def before_close(self, drop: Callable[[], None]) -> None:
        """Has `close` call `drop`, in any thread: what drops CUDA graphs that hold collectives of
        this group. NCCL does not end before they are gone."""
        self._drops.append(drop)

    def close(self) -> None:
        """Leaves the group: the peers' next collective fails. Idempotent.

        Takes seconds at most: it waits neither for the peers nor for the device, which may both be
        stuck.
        """
        for memory in (self._shared, self._tensors):
            if memory is not None:
                memory.close()
        drop, self._drops = self._drops, []
        held = list({id(one): one for one in (self._data, self._control) if one}.values())
        self._sum = OrderedSum(None, self.size)
        self._control = self._data = self._shared = self._tensors = None
        end(held, drop)
        self._store = None

    def _connect(self, timeout_s: float) -> None:
        """Runs each collective of the device once, since backends connect in the first one."""
        if self._data is None or self._data is self._control:
            self.all_reduce(torch.zeros(1, device=self.device))
        else:
            event = within(timeout_s, "connecting the ranks' GPUs", self._connect_gpu)
            poll(timeout_s, "the first collective on the GPUs", event.query)
        self.counts.clear()

    def _connect_gpu(self) -> torch.cuda.Event:
        torch.cuda.set_device(self.device)  # of this thread
        x = torch.zeros(ONE_SHOT_BYTES, dtype=torch.float32, device=self.device)
        self.all_reduce(x[:1])
        self.all_reduce(x)
        self.gather(x[:1])
        self.broadcast(x[:1])
        event: torch.cuda.Event = torch.cuda.current_stream().record_event()
        return event

    def _is_staged(self, x: Tensor) -> bool:
        return self._data is None and not x.is_cpu

    def _backend_of(self, x: Tensor) -> Backend:
        return self._control if x.is_cpu else self._data

    def _broadcast(self, x: Tensor) -> None:
        options = on_current_stream(dist.BroadcastOptions())
        options.rootRank = 0
        options.rootTensor = 0
        self._run_backend("broadcast", self._backend_of(x).broadcast, [x], options)

    def _run(self, name: str, collective: Callable[..., R], *args: Any) -> R:
        self.counts[name] += 1
        return collective(*args)

    def _run_backend(self, name: str, collective: Callable[..., Any], *args: Any) -> None:
        wait_for(self._run(name, collective, *args))
