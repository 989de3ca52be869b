"""One real application for all tests of clients."""

from collections.abc import Iterator

import pytest

from serve_app.client import live_turn
from serve_app.client.chat_client import ChatClient
from tests.serve_app.client.sites import Line, Served, served


@pytest.fixture(scope="package")
def running(store_url: str) -> Iterator[Served]:
    with served(store_url) as made:
        yield made


@pytest.fixture
def app(running: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """With an unheld script of its own for each test, and clients that do not wait long."""
    monkeypatch.setattr(live_turn, "FIRST_PAUSE_S", 0.01)
    running.held_from = None
    running.gate.clear()
    script = running.site.model.think, running.site.model.reply
    yield running
    running.gate.set()
    running.site.model.think, running.site.model.reply = script
    running.site.model.requests.clear()


@pytest.fixture
def line(app: Served) -> Iterator[Line]:
    made = Line(app.url)
    yield made
    made.close()


@pytest.fixture
def client(line: Line) -> Iterator[ChatClient]:
    made = ChatClient(line.url, patience_s=10)
    yield made
    made.close()
