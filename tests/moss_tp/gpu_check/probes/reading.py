"""Misses its bar by what `passing` has found."""

from moss_tp.gpu_check.check import Check
from moss_tp.gpu_check.verdict import Verdict


def run(check: Check) -> None:
    answer = check.found("passing", "answer")
    check.verdict(Verdict("answer", answer, bar=answer - 1, sense="at most"))
