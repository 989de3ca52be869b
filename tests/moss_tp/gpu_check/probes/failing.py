"""Raises."""

from moss_tp.gpu_check.check import Check


def run(check: Check) -> None:
    print("what it was doing", flush=True)
    raise ValueError("out of cheese")
