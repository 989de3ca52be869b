"""A live turn read over a line that breaks: nothing is doubled, nothing is lost."""

import random
import re

import pytest

from serve_app.client.api import ChatError
from serve_app.client.chat_client import ChatClient
from serve_app.client.turn_events import Delta, Done, Reset, TurnEvent, Waiting
from tests.serve_app.client.sites import Line, Served

REPLY = "你好, one two three. " * 12


def text_of(events: list[TurnEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def waits_of(events: list[TurnEvent]) -> int:
    return sum(isinstance(event, Waiting) for event in events)


def stored_turns(client: ChatClient) -> list[str]:
    return [turn["reply"] for turn in client.session()["turns"]]


@pytest.mark.parametrize("seed", range(6))
def test_cuts_anywhere_cost_no_text(app: Served, line: Line, client: ChatClient, seed: int) -> None:
    app.site.model.reply = lambda prompt: f" {REPLY}<eom>"
    random.seed(seed)
    line.cut_after = [random.randrange(1, 1500) for _ in range(4)]
    events = [*client.ask("hello")]
    assert waits_of(events) >= line.num_cuts > 0
    assert text_of(events) == REPLY
    assert isinstance(events[-1], Done) and events[-1].reply == REPLY
    assert stored_turns(client) == [REPLY]
    assert not any(isinstance(event, Reset) for event in events)


def test_a_reader_comes_back_with_the_last_id(app: Served, line: Line, client: ChatClient) -> None:
    app.site.model.reply = lambda prompt: f" {REPLY}<eom>"
    line.cut_after = [900]
    [*client.ask("hello")]
    last = [re.search(rb"(?i)last-event-id: (\d+)", request) for request in line.requests]
    assert [int(found[1]) for found in last if found] != []


def test_an_answer_that_was_lost_is_asked_for_with_the_same_key(
    app: Served, line: Line, client: ChatClient
) -> None:
    app.site.model.reply = lambda prompt: " once<eom>"
    num_lost = 0

    def lose(request: bytes) -> bool:
        nonlocal num_lost
        is_turn = request.startswith(b"POST") and b"/turns" in request
        num_lost += is_turn
        return is_turn and num_lost <= 2

    line.lose = lose
    events = [*client.ask("hello")]
    assert text_of(events) == "once" and waits_of(events) >= 2
    assert stored_turns(client) == ["once"]
    keys = [re.search(rb"(?i)idempotency-key: (\S+)", request) for request in line.requests]
    assert len({found[1] for found in keys if found}) == 1
    [*client.ask("again")]
    assert len(stored_turns(client)) == 2, "another turn has another key"


def test_a_running_turn_is_found_though_its_start_was_lost(
    app: Served, line: Line, client: ChatClient
) -> None:
    app.site.model.reply = lambda prompt: f" {REPLY}<eom>"
    app.held_from = 6
    lost: list[bytes] = []

    def lose(request: bytes) -> bool:
        if request.startswith(b"POST") and b"/turns" in request and not lost:
            lost.append(request)
            return True
        return False

    line.lose = lose
    events = client.ask("hello")
    told = [next(events)]
    while text_of(told) != REPLY[:5]:
        told.append(next(events))
    assert len(app.site.model.requests) == 2, "one turn: thoughts and a reply"
    app.gate.set()
    told += events
    assert text_of(told) == REPLY and len(stored_turns(client)) == 1


def test_a_server_that_stays_away_is_not_waited_for_forever(
    app: Served, line: Line, client: ChatClient
) -> None:
    app.site.model.reply = lambda prompt: f" {REPLY}<eom>"
    app.held_from = 6
    client.patience_s = 0.05
    events = client.ask("hello")
    told = [next(events)]
    while text_of(told) != REPLY[:5]:
        told.append(next(events))
    line.is_down = True
    line.drop()
    with pytest.raises(ChatError, match="connection"):
        for event in events:
            told.append(event)
    assert text_of(told) == REPLY[:5] and 1 < waits_of(told) < 6
    line.is_down = False
    app.gate.set()
