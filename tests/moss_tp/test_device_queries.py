"""What the engine asks the machine itself: a GPU by its own number, and systems without /proc."""

import os
from pathlib import Path

import pytest
import torch

from moss_tp import device


class NoProc:
    """`Path` on a system without /proc."""

    def __init__(self, name: str) -> None:
        assert name.startswith("/proc/")

    def exists(self) -> bool:
        return False


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_free_memory_of_a_gpu_is_that_of_its_own(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", {name: (3, 80)}.__getitem__)
    assert device.free_memory(name) == 3


def test_the_page_cache_counts_as_free() -> None:
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    assert free["MemFree"] < device.free_memory("cpu") <= free["MemTotal"]


def test_without_proc_all_memory_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "Path", NoProc)
    assert device.free_memory("cpu") == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_without_proc_the_current_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "Path", NoProc)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert device.threads_per_rank(2) == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert device.threads_per_rank(10_000) == 1
