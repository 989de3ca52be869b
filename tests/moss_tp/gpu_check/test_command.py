"""The command on a machine without a GPU: what it prints and writes, and its status."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from moss_tp.gpu_check.command import main

ROOT = Path(__file__).parents[3]


def test_results_are_printed_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gpu.json"
    status = main(["--device", "cpu", "--only", "limits", "--out", str(out)])
    shown = capsys.readouterr().out
    assert status == 0
    assert "reading alone:" in shown and "all verdicts pass" in shown
    report = json.loads(out.read_text())
    limits = report["parts"]["limits"]
    assert report["torch"] and report["commit"] and not limits["error"]
    assert limits["figures"]["rates"]["read_bytes_s"] > 0
    assert all(verdict["passes"] for verdict in limits["verdicts"])


def test_a_miss_is_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cpu", "--only", "limits", "--budget", "1"]) == 1
    assert "1 of the verdicts are misses" in capsys.readouterr().out


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "sped"]) == 2
    assert "there is no part sped" in capsys.readouterr().err


def test_it_says_that_there_is_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert main([]) == 2
    assert "there is no CUDA device" in capsys.readouterr().err


def test_it_needs_moss_tp_alone() -> None:
    """No pydantic, ray or redis, and no installation: it runs from a checkout."""
    code = (
        "import sys\n"
        "class Without:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('pydantic', 'ray', 'redis', 'starlette', 'serve_app'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Without())\n"
        "from pkgutil import iter_modules\n"
        "from importlib import import_module\n"
        "import moss_tp.gpu_check.command, moss_tp.gpu_check.parts as parts\n"
        "for part in iter_modules(parts.__path__):\n"
        "    import_module(f'moss_tp.gpu_check.parts.{part.name}')\n"
    )
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
