"""A Ray that has died is noticed at once, said in one line, and never waited for."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from serve_app.cli.serve import ray_watch
from serve_app.cli.serve.ray_watch import RayDiedError, RayWatch
from tests.support.waiting import wait_until

# A process with a Ray; "gcs_server" is a copy of sleep.
WITH_RAY = """
import shutil, subprocess, sys, time
from contextlib import suppress
from serve_app.cli.serve import ray_watch
ray_watch.LEAVE_S = 0.2
shutil.copy(shutil.which("sleep"), sys.argv[1])
child = subprocess.Popen([sys.argv[1], "600"])
while ray_watch.psutil.Process(child.pid).name() != "gcs_server":
    time.sleep(0.01)
watch = ray_watch.RayWatch(lambda line: print(line, flush=True))
"""
HANGS = """
with watch.bounded_end(), watch:
    child.kill()
    time.sleep(600)
"""
ENDS_IN_ORDER = """
with suppress(ray_watch.RayDiedError), watch.bounded_end(), watch:
    child.kill()
    while True:
        watch.check()
        time.sleep(0.01)
time.sleep(5 * ray_watch.LEAVE_S)
print("the store has stopped")
"""


@pytest.fixture
def fake_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "subprocess.Popen[bytes]":
    monkeypatch.setattr(ray_watch, "WATCH_S", 0.01)
    monkeypatch.setattr(ray_watch, "NEEDED", ("sleep",))
    child = subprocess.Popen(["sleep", "600"])
    assert wait_until(lambda: psutil.Process(child.pid).name() == "sleep", 10)
    return child


def has_died(watch: RayWatch) -> bool:
    try:
        watch.check()
    except RayDiedError:
        return True
    return False


def test_a_death_is_raised_by_check(
    fake_ray: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[float] = []
    monkeypatch.setattr(RayWatch, "_leave_in", lambda watch, seconds: left.append(seconds))
    with RayWatch(lambda line: None) as watch:
        watch.check()
        fake_ray.kill()  # a zombie counts as dead
        assert wait_until(lambda: has_died(watch), 10)
        with pytest.raises(RayDiedError, match=r"Ray has died \(sleep is gone\)"):
            watch.check()
    fake_ray.wait()
    assert left[0] == ray_watch.LEAVE_S


def test_an_end_after_the_block_is_none_of_its_business(
    fake_ray: "subprocess.Popen[bytes]",
) -> None:
    with RayWatch(lambda line: None) as watch:
        pass
    watch._thread.join()
    fake_ray.kill()
    fake_ray.wait()
    watch.check()


def run(script: str, directory: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", WITH_RAY + script, str(directory / "gcs_server")],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[4],
    )


def test_a_child_that_has_just_ended_is_no_error(
    fake_ray: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    brief = subprocess.Popen(["sleep", "600"])
    children = [psutil.Process(brief.pid), psutil.Process(fake_ray.pid)]
    brief.kill()
    brief.wait()
    monkeypatch.setattr(psutil.Process, "children", lambda process: children)
    with RayWatch(lambda line: None) as watch:
        watch.check()
    fake_ray.kill()
    fake_ray.wait()


def test_what_ends_after_ray_takes_its_own_time(tmp_path: Path) -> None:
    shown = run(ENDS_IN_ORDER, tmp_path)
    assert (shown.returncode, shown.stderr, shown.stdout) == (0, "", "the store has stopped\n")


def test_a_process_that_hangs_with_its_ray_is_ended_with_one_line(tmp_path: Path) -> None:
    shown = run(HANGS, tmp_path)
    assert (shown.returncode, shown.stderr) == (ray_watch.DIED, "")
    assert shown.stdout == "Ray has died (gcs_server is gone), and the server with it\n"
