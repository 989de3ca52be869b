"""What plugins tell the user, while the server runs already."""

import threading

import pytest

from serve_app.cli.serve import plugin_notes as module
from serve_app.cli.serve.plugin_notes import plugin_notes
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.01)


def test_each_line_is_said_once_and_as_soon_as_it_is_known() -> None:
    answers: list[str | Exception | None] = [RuntimeError("starting"), None, "web search: 3"]
    asked: list[str] = []
    said: list[str] = []

    def slow() -> str | None:
        asked.append("slow")
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def silent() -> str:
        asked.append("silent")
        return ""

    with plugin_notes([slow, silent], said.append):
        wait_until(lambda: bool(said), 30)
    assert said == ["web search: 3"]
    assert asked == ["slow", "silent", "slow", "slow"]


def test_a_plugin_that_hangs_keeps_nothing_waiting() -> None:
    asked, release = threading.Event(), threading.Event()

    def hang() -> None:
        asked.set()
        release.wait(30)

    with plugin_notes([hang], print):
        assert asked.wait(30)
    release.set()
