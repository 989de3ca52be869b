"""The embedded store starts in directories that are new or its own, and in no other."""

from pathlib import Path

import pytest

from moss_tp.errors import ConfigError
from serve_app.store.data_directory import check_own
from serve_app.store.embedded import EmbeddedStore


def test_new_and_used_directories(tmp_path: Path) -> None:
    check_own(tmp_path / "none")
    check_own(tmp_path)
    for _ in range(2):
        with EmbeddedStore(tmp_path / "used"):
            pass
    check_own(tmp_path / "used")


def test_a_directory_of_a_supervisor_that_was_killed_at_once(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    check_own(tmp_path)


@pytest.mark.parametrize(
    "files",
    [{"socket": "mine"}, {"notes": ""}, {"lock": "requests==2.0\n"}, {"lock": "9" * 99}],
)
def test_nothing_of_somebody_else_is_touched(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match="no session store made"):
        EmbeddedStore(tmp_path).start()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files
