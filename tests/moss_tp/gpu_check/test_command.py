"""The command on a machine without a GPU: what it prints and writes, and its status."""

import json
import os
import signal
import subprocess
import sys
import time
from math import inf
from pathlib import Path

import psutil
import pytest

from moss_tp.gpu_check.command import main
from moss_tp.gpu_check.report import plain
from moss_tp.hardware.present import has_gpu

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
    assert report["torch"] and not limits["error"]
    words = "--only limits --budget 240 --device cpu --size tiny"
    assert report["command"] == f"python -m moss_tp.gpu_check {words}"
    assert limits["figures"]["rates"]["read_bytes_s"] > 0
    assert all(verdict["passes"] for verdict in limits["verdicts"])


def test_a_miss_is_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cpu", "--only", "limits", "--budget", "1"]) == 1
    assert "verdicts that are misses: 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "sped"], "there is no part sped"),
        (["--budget", "nan"], "the budget cannot be nan s"),
        (["--budget", "0"], "the budget cannot be 0.0 s"),
        (["--budget", "-3"], "the budget cannot be -3.0 s"),
        (["--out", "missing/gpu.json"], "missing/gpu.json cannot be written"),
        (["--out", "."], ". cannot be written"),
    ],
)
def test_usage(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--device", "cpu", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"gpu_check: {message}")


def test_results_say_nothing_of_this_machine() -> None:
    where = f'File "{ROOT}/moss_tp/model.py", line 3; {Path(json.__file__).parent}/decoder.py'
    found = plain({"log": where, "rates": [1.5, inf, "nan"]}, (str(ROOT),))
    assert found["rates"] == [1.5, None, "nan"]
    assert found["log"] == 'File "moss_tp/model.py", line 3; json/decoder.py'


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_part_that_runs(number: int, status: int, tmp_path: Path) -> None:
    command, child = _started_hanging(tmp_path)
    command.send_signal(number)
    assert command.wait(60) == status
    _assert_gone(child)
    assert not list(tmp_path.glob("gpu-check-*"))


def test_a_part_ends_with_a_command_that_is_killed(tmp_path: Path) -> None:
    command, child = _started_hanging(tmp_path)
    command.kill()
    command.wait(20)
    _assert_gone(child)


def _started_hanging(tmp_path: Path) -> tuple["subprocess.Popen[bytes]", int]:
    """The command with a part that hangs, and the pid of what that has started."""
    code = (
        "import signal, sys\n"
        # A shell starts what runs in its background with Ctrl-C ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from moss_tp.gpu_check import command\n"
        "from moss_tp.gpu_check.part import Part\n"
        "part = Part('hanging', '', 200, home='tests.moss_tp.gpu_check.probes')\n"
        "command.prepare = lambda *_: [part]\n"
        "if __name__ == '__main__':\n"
        "    sys.exit(command.main(['--device', 'cpu']))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    command = subprocess.Popen([sys.executable, str(script)], env=environment)
    deadline = time.monotonic() + 60
    while not (found := list(tmp_path.glob("gpu-check-*/child"))) or not found[0].read_text():
        assert time.monotonic() < deadline and command.poll() is None
        time.sleep(0.05)
    return command, int(found[0].read_text())


def _assert_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_says_that_there_is_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    if has_gpu():
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
