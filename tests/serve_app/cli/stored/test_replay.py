"""`moss replay`: what it prints, and its exit status."""

from typing import Any

import pytest

from serve_app.cli.stored.replay import OTHER_BYTES, OTHER_MAKE_UP, SAME, report


def test_the_same_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    assert report({"differences": {}, "changed": [], "reply": "hi"}) == SAME
    assert capsys.readouterr().out == "the same bytes\n"


def test_other_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    assert report({"differences": {}, "changed": ["reply"], "reply": "ho"}) == OTHER_BYTES
    assert "reply" in capsys.readouterr().out


def test_another_make_up(capsys: pytest.CaptureFixture[str]) -> None:
    differences = {"dtype": ["float32", "bfloat16"]}
    answer: dict[str, Any] = {"differences": differences, "changed": [], "reply": None}
    assert report(answer) == OTHER_MAKE_UP == 2
    assert capsys.readouterr().out.startswith("dtype: float32 then, bfloat16 now\n")
