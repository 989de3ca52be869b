"""The CPU time of a server's processes, added up by what they do.

Ray names its processes: an ingress is a `ray::ServeReplica:moss:Ingress`. What is of no kind here,
such as Serve's controller and Ray's own daemons, is "other".
"""

from collections.abc import Mapping
from contextlib import suppress

import psutil

# A part of the command line, and the kind. "replica" is the model's: all ranks of its group.
_KINDS = {
    ":Ingress": "ingress",
    ":MossServer": "replica",
    "ray::TPWorker": "replica",
    "ray::ProxyActor": "proxy",
    "valkey-server": "store",
}
KINDS = (*dict.fromkeys(_KINDS.values()), "other")

CpuSeconds = Mapping[str, float]


def kind_of(command: str) -> str:
    """What a process with that command line does."""
    return next((kind for part, kind in _KINDS.items() if part in command), "other")


class CpuMeter:
    """Of process `pid` and its descendants."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)

    def read(self) -> CpuSeconds:
        """User and system time of the processes that run now, in seconds by kind."""
        seconds = dict.fromkeys(KINDS, 0.0)
        for process in (self._root, *self._root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                seconds[kind_of(" ".join(process.cmdline()))] += times.user + times.system
        return seconds


def no_meter() -> CpuSeconds:
    """That of a server elsewhere."""
    return {}


def used(before: CpuSeconds, after: CpuSeconds) -> CpuSeconds:
    """Between two readings."""
    return {kind: after[kind] - before[kind] for kind in after}
