"""The chat client on the real application: cancel, another reply, plugins, going on elsewhere."""

from collections.abc import Iterator

import pytest

from serve_app.client.api import ChatError
from serve_app.client.chat_client import ChatClient
from serve_app.client.turn_events import Delta, Done, TurnEvent
from tests.serve_app.client.sites import Served

TALE = "Once upon a time"


@pytest.fixture
def other(app: Served) -> Iterator[ChatClient]:
    made = ChatClient(app.url)
    yield made
    made.close()


def read_until(events: Iterator[TurnEvent], text: str) -> str:
    """The text told, as soon as it begins with `text`."""
    told = ""
    for event in events:
        told += event.text if isinstance(event, Delta) else ""
        if told.startswith(text):
            break
    return told


def replies(client: ChatClient) -> list[str]:
    return [turn["reply"] for turn in client.session()["turns"]]


def test_a_turn_that_is_stopped_is_kept(app: Served, client: ChatClient) -> None:
    app.site.model.reply = lambda prompt: f" {TALE}<eom>"
    app.held_from = 10
    events = client.ask("hello")
    told = read_until(events, "Once ")
    events.close()
    rest = client.stop()
    assert [told + rest] == replies(client) == ["Once upon"]
    app.gate.set()
    assert client.stop() == "", "nothing runs"
    assert read_until(client.regenerate(), TALE) == TALE, "it can be made again"


def test_a_turn_is_stopped_whose_id_never_came(app: Served, client: ChatClient) -> None:
    app.site.model.reply = lambda prompt: f" {TALE}<eom>"
    app.held_from = 10
    read_until(events := client.ask("hello"), "Once upon")
    events.close()
    turn = client._turn
    assert turn is not None and turn.id
    turn.id = turn.text = ""
    assert client.stop() == "Once upon"
    assert replies(client) == ["Once upon"]


def test_another_reply_takes_the_place_of_the_last_one(app: Served, client: ChatClient) -> None:
    with pytest.raises(ChatError, match="there is no reply yet"):
        list(client.regenerate())
    for count in (1, 2):
        *_, done = client.ask("hello")
        assert isinstance(done, Done) and done.reply == f"turn {count}"
    *_, done = client.regenerate(temperature=1.0)
    assert isinstance(done, Done) and done.reply == "turn 2"
    assert len(client.session()["turns"]) == 2


def test_plugins_are_switched_for_this_chat_and_the_next(app: Served, client: ChatClient) -> None:
    assert [(p.name, p.is_on) for p in client.plugins()] == [
        ("web_search", True),
        ("calculator", True),
    ]
    client.switch(["calculator"], False)
    [*client.ask("hello")]
    assert client.session()["plugins"] == ["web_search"]
    client.switch(["web_search"], False)
    assert client.session()["plugins"] == []
    client.clear()
    [*client.ask("hello")]
    assert client.session()["plugins"] == []
    client.switch(["web_search", "calculator"], True)
    assert client.session()["plugins"] is None
    with pytest.raises(ChatError, match="there is no plugin a, b"):
        client.switch(["b", "a", "calculator"], False)
    assert all(p.is_on for p in client.plugins())


def test_a_chat_goes_on_elsewhere_with_its_plugins(
    app: Served, client: ChatClient, other: ChatClient
) -> None:
    with pytest.raises(ChatError, match="there is no chat yet"):
        client.session()
    client.switch(["calculator"], False)
    [*client.ask("  A sum\nand more  ")]
    assert client.session()["title"] == "A sum"
    assert client.uid is not None and other.join(client.uid) is None
    assert [p.is_on for p in other.plugins()] == [True, False]
    *_, done = other.ask("again")
    assert isinstance(done, Done) and done.reply == "turn 2"
    with pytest.raises(ChatError, match="session"):
        other.join("0" * 32)


def test_who_joins_in_the_middle_of_a_turn_reads_it_all(
    app: Served, client: ChatClient, other: ChatClient
) -> None:
    app.site.model.reply = lambda prompt: f" {TALE}<eom>"
    app.held_from = 10
    read_until(client.ask("hello"), "Once upon")
    assert client.uid is not None
    running = other.join(client.uid)
    assert running is not None
    told = read_until(running, "Once upon")
    app.gate.set()
    assert told + read_until(running, "nothing else begins so") == TALE
    assert read_until(other.regenerate(), TALE) == TALE
