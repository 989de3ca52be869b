"""The memory of processes, shared pages divided among those that share them."""

import psutil


def family_pss(pid: int) -> int:
    """Proportional set size, in bytes, of a process and its descendants: anonymous memory, and
    mapped files as far as they are in memory. Processes that have just ended count nothing."""
    try:
        root = psutil.Process(pid)
        return sum(_pss(member) for member in (root, *root.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


def _pss(process: psutil.Process) -> int:
    try:
        num_bytes: int = process.memory_full_info().pss
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # a zombie's is not to be had
        return 0
    return num_bytes
