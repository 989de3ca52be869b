"""The memory of processes, shared pages divided among those that share them."""

from pathlib import Path

import psutil

_KIB = 1024


def family_pss(pid: int) -> int:
    """Proportional set size, in bytes, of a process and its descendants: anonymous memory, and
    mapped files as far as they are in memory. Processes that have just ended count nothing."""
    try:
        root = psutil.Process(pid)
        family = (root, *root.children(recursive=True))
    except psutil.NoSuchProcess:
        return 0
    return sum(_pss(member.pid) for member in family)


def _pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    lines = (line.split() for line in text.splitlines())
    return next((int(line[1]) * _KIB for line in lines if line[:1] == ["Pss:"]), 0)
