"""Finds something, starts a process, and never ends."""

import subprocess
import time

from moss_tp.gpu_check.check import Check
from moss_tp.gpu_check.verdict import Verdict


def run(check: Check) -> None:
    check.verdict(Verdict("before it hung", 1, bar=1))
    child = subprocess.Popen(["sleep", "300"])
    (check.directory / "child").write_text(str(child.pid))
    time.sleep(300)
