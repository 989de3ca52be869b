"""A CPU engine that fails is not waited for in silence."""

import subprocess
import sys
from pathlib import Path

import pytest

from moss_tp.gpu_check.parts.tokens import CpuTokens


def test_it_says_what_the_process_said(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        code = "import sys; sys.exit('no such compiler')"
        process = subprocess.Popen([sys.executable, "-c", code], stderr=file)
    with pytest.raises(RuntimeError, match="status 1: no such compiler"):
        CpuTokens(process, log).wait()
