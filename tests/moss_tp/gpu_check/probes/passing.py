"""Finds a figure."""

from moss_tp.gpu_check.check import Check
from moss_tp.gpu_check.verdict import Verdict


def run(check: Check) -> None:
    check.figure("answer", 42)
    check.verdict(Verdict("speed", 90, "tok/s", limit=100, bar=0.85))
