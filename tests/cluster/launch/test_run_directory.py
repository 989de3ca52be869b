"""Run directories are private, locked while they are used, and cleared when their owner is gone."""

import fcntl
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.launch.run_directory import (
    MAX_SOCKET_PATH,
    RunDirectory,
    make_run_directory,
    run_directory,
)
from moss_tp.errors import ConfigError

# Makes a directory, gives its lock to a child, prints the path and both pids, and waits.
HOLDER = """
import os, subprocess, sys, time
from cluster.launch.run_directory import make_run_directory
made = make_run_directory("ray", "socket")
(made.path / "socket").touch()
os.chmod(made.path, 0o777)  # as Ray does
child = subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(600)"],
    stdout=subprocess.DEVNULL,
    pass_fds=(made.lock,) if sys.argv[1] == "shared" else (),
)
print(made.path, child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of the test's own, with a shorter path than pytest's."""
    with tempfile.TemporaryDirectory(prefix="run-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setattr("cluster.launch.run_directory._SHORT", folder)
        yield Path(folder)


@pytest.fixture
def folder(temporary: Path) -> Path:
    return temporary / f"moss-{os.geteuid()}"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_directory_lives_for_the_block_behind_a_private_folder(folder: Path) -> None:
    with run_directory("ray", "socket") as path:
        (path / "socket").touch()
        assert path.parent == folder
        assert (mode_of(folder), mode_of(path)) == (0o700, 0o700)
    assert not path.exists()


def test_an_error_keeps_it_and_a_request_to_stop_does_not() -> None:
    with pytest.raises(KeyboardInterrupt), run_directory("ray", "socket") as stopped:
        raise KeyboardInterrupt
    assert not stopped.exists()
    with pytest.raises(ValueError), run_directory("ray", "socket") as failed:
        raise ValueError
    assert failed.exists()
    with run_directory("ray", "socket") as path:
        assert path.exists() and not failed.exists(), "the next start clears it"


def start_holder(temporary: Path, how: str) -> tuple["subprocess.Popen[str]", Path, int]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, how],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert holder.stdout is not None
    path, child = holder.stdout.readline().split()
    return holder, Path(path), int(child)


@pytest.mark.parametrize("how", ["alone", "shared"])
def test_leftovers_are_cleared_when_nobody_holds_them(temporary: Path, how: str) -> None:
    holder, path, child = start_holder(temporary, how)
    try:
        make_run_directory("ray", "socket").remove()
        assert (path / "socket").exists(), "its holder lives"
        holder.kill()
        holder.communicate()
        make_run_directory("store", "socket").remove()
        assert (path / "socket").exists(), "another kind of run"
        make_run_directory("ray", "socket").remove()
        assert path.exists() == (how == "shared")
    finally:
        os.kill(child, signal.SIGKILL)
    while path.exists():  # the kernel drops the lock when it has reaped the child
        make_run_directory("ray", "socket").remove()


def test_what_is_not_ours_stays(folder: Path, temporary: Path) -> None:
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    folder.mkdir(mode=0o700)
    (folder / "ray-link").symlink_to(elsewhere)
    (folder / "ray-file").touch()
    (folder / "other").mkdir()
    make_run_directory("ray", "socket").remove()
    assert {path.name for path in folder.iterdir()} == {"ray-link", "ray-file", "other"}
    assert elsewhere.exists()


@pytest.mark.parametrize("how", ["open", "link", "file"])
def test_a_folder_that_others_could_enter_is_refused(
    folder: Path, temporary: Path, how: str
) -> None:
    (temporary / "elsewhere").mkdir(mode=0o700)
    if how == "open":
        folder.mkdir()
        folder.chmod(0o777)
    elif how == "link":
        folder.symlink_to(temporary / "elsewhere")
    else:
        folder.touch()
    with pytest.raises(ConfigError, match=r"moss-\d+.*set TMPDIR"):
        make_run_directory("ray", "socket")


def test_a_folder_that_cannot_be_made_is_named(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "missing"))
    monkeypatch.setattr("cluster.launch.run_directory._SHORT", str(temporary / "missing"))
    with pytest.raises(ConfigError, match=r"cannot make .*missing.*No such file"):
        make_run_directory("ray", "socket")


def test_a_path_too_long_for_sockets_gives_way_to_a_short_one(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = temporary / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    made = make_run_directory("ray", "socket")
    assert made.path.parents[1] == temporary
    made.remove()
    with pytest.raises(ConfigError, match="too long a path for sockets"):
        make_run_directory("ray", "x" * MAX_SOCKET_PATH)


def test_the_longest_path_fits_exactly(folder: Path) -> None:
    made = make_run_directory("ray", "")
    made.remove()
    room = MAX_SOCKET_PATH - len(str(made.path)) - 1
    make_run_directory("ray", "x" * room).remove()
    with pytest.raises(ConfigError):
        make_run_directory("ray", "x" * (room + 1))


@pytest.mark.timeout(60)
def test_nobody_waits_for_a_run_that_is_stopped(folder: Path) -> None:
    """Whatever it has locked at that moment."""
    made = make_run_directory("ray", "socket")
    held = os.open(folder, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    make_run_directory("ray", "socket").remove()
    os.close(held)
    made.remove()


def test_runs_that_start_at_once_do_not_clear_each_other() -> None:
    def make(number: int) -> list[RunDirectory]:
        made = []
        for _ in range(50):
            made.append(make_run_directory("ray", "socket"))
            if len(made) > 3:
                made.pop(0).remove()
            assert all(directory.path.is_dir() for directory in made)
        return made

    with ThreadPoolExecutor(4) as pool:
        left = [directory for made in pool.map(make, range(4)) for directory in made]
    assert all(directory.path.is_dir() for directory in left)
    assert len({directory.path for directory in left}) == len(left) == 12
    for directory in left:
        directory.remove()
