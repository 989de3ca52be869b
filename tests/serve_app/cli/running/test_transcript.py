"""A chat as a file."""

import json
from pathlib import Path
from typing import Any

import pytest

from serve_app.cli.running.transcript import SaveError, save

ITEMS = [{"n": 1, "title": "First", "url": "http://one.example", "snippet": ""}]
CALLS = [{"output": "408"}, {"output": ITEMS}, {"output": None}]
CHAT: dict[str, Any] = {
    "title": "sums",
    "turns": [
        {"user": "你好", "reply": " *Hi*.<sup><|1|></sup>", "plugin_calls": CALLS},
        {"user": "again", "reply": "Hi.", "plugin_calls": []},
    ],
}


def test_markdown_has_texts_and_sources(tmp_path: Path) -> None:
    save(CHAT, tmp_path / "a.md")
    assert (tmp_path / "a.md").read_text("utf-8") == (
        "# sums\n\n## Human\n\n你好\n\n## MOSS\n\n*Hi*.[1]\n\n- [1] First http://one.example\n\n"
        "## Human\n\nagain\n\n## MOSS\n\nHi.\n"
    )


def test_json_is_the_servers(tmp_path: Path) -> None:
    save(CHAT, tmp_path / "a.JSON")
    assert json.loads((tmp_path / "a.JSON").read_text("utf-8")) == CHAT


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(SaveError, match="is there already"):
        save(CHAT, tmp_path / "a")
    assert (tmp_path / "a").read_text() == "mine"


@pytest.mark.parametrize("name", ["no/such/folder", "~no-such-user/a", "a\0b"])
def test_what_cannot_be_written_is_one_line(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SaveError, match="cannot write"):
        save(CHAT, Path(name))


def test_home_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save(CHAT, Path("~/a.md"))
    assert (tmp_path / "a.md").exists()
