"""Compiled code on disk is as good as its sources: an edit anywhere in a package recompiles it.

Each run is a process of its own, as Numba's caches within a process would hide what is on disk.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from moss_tp.native.sources import cache_dir

PACKAGE = {
    "__init__.py": """
from pathlib import Path
from moss_tp.native.sources import register_sources
register_sources(Path(__file__).parent)
""",
    "main.py": """
from moss_tp.native.compiled import python_callable
from sample.deep.nested.constant import constant

@python_callable("int64()")
def answer():
    return constant()
""",
    "deep/__init__.py": "",
    "deep/nested/__init__.py": "",
    "deep/nested/constant.py": """
from moss_tp.native.compiled import exact_inner

@exact_inner
def constant():
    return 41
""",
}
OTHER = """
from moss_tp.native.compiled import python_callable
from moss_tp.native.sources import register_sources
register_sources(__file__)

@python_callable("int64()")
def other():
    return 1
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with a kernel, whose inner function is two folders below it."""
    folder = tmp_path / "sample"
    for name, source in PACKAGE.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    (tmp_path / "other.py").write_text(OTHER)
    return folder


def run(package: Path, program: str) -> str:
    env = os.environ | {
        "NUMBA_CACHE_DIR": str(package.parent / "cache"),
        "PYTHONDONTWRITEBYTECODE": "1",  # an edit within a second must count
        "PYTHONPATH": os.pathsep.join([str(package.parent), *sys.path]),
    }
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def answer(package: Path, before: str = "") -> int:
    return int(run(package, f"{before}\nfrom sample.main import answer; print(answer())"))


def machine_code(package: Path) -> dict[Path, int]:
    """The files that Numba wrote, and when."""
    return {file: file.stat().st_mtime_ns for file in (package.parent / "cache").rglob("*.nb[ci]")}


def test_an_edited_nested_file_is_recompiled(package: Path) -> None:
    assert answer(package) == 41
    before = machine_code(package)
    assert before
    nested = package / "deep" / "nested" / "constant.py"
    nested.write_text(nested.read_text().replace("41", "42"))
    assert answer(package) == 42
    assert set(machine_code(package)) > set(before)


def test_unedited_sources_are_not_recompiled(package: Path) -> None:
    assert answer(package) == 41
    before = machine_code(package)
    assert answer(package) == 41
    assert machine_code(package) == before


def test_the_digest_does_not_depend_on_other_packages(package: Path) -> None:
    """Whether and when another package is imported, or edited, changes nothing."""
    assert answer(package) == 41
    before = machine_code(package)
    assert answer(package, before="import other") == 41
    other = package.parent / "other.py"
    other.write_text(other.read_text().replace("return 1", "return 2"))
    assert answer(package, before="import other") == 41
    after = machine_code(package)
    assert {file: time for file, time in after.items() if file in before} == before
    assert all("other" in file.name for file in set(after) - set(before))


def test_unregistered_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="not registered"):
        cache_dir(tmp_path / "kernel.py")
