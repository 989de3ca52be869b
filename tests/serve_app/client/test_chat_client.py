"""The chat client against a scripted server, with every kind of failure."""

from collections.abc import Iterator

import pytest

from serve_app.bench.load.server_process import free_port
from serve_app.client import live_turn
from serve_app.client.api import ChatError
from serve_app.client.chat_client import ChatClient
from serve_app.client.turn_events import Delta, Done, Reset, TurnEvent, Waiting
from tests.serve_app.client.scripted_server import (
    ScriptedServer,
    scripted_server,
    stream,
    told,
    turn,
)

TURN = ("turn", {"id": turn(1)["id"], "uid": "u1"})
HI = ("delta", {"text": "hi"})
ERROR = {"error": {"message": "the model's process is gone", "type": "server_error"}}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture
def client(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatClient]:
    monkeypatch.setattr(live_turn, "FIRST_PAUSE_S", 0.01)
    client = ChatClient(server.url, patience_s=0.1)
    yield client
    client.close()


def text_of(events: list[TurnEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def turns_asked_for(server: ScriptedServer) -> list[str]:
    return [path for path in server.paths if path.endswith("/turns")]


def test_a_chat_is_one_session_until_it_is_cleared(
    server: ScriptedServer, client: ChatClient
) -> None:
    server.replies += [told("hi ", "there"), told(), told()]
    events = [*client.ask("hello", temperature=0.5)]
    assert events[:-1] == [Delta("hi "), Delta("there")] and isinstance(events[-1], Done)
    [*client.ask("again")]
    client.clear()
    [*client.ask("anew")]
    assert server.bodies == [
        {"user": "hello", "stream": True, "temperature": 0.5},
        {"user": "again", "stream": True},
        {"user": "anew", "stream": True},
    ]
    assert [path.split("/")[3] for path in turns_asked_for(server)] == ["u1", "u1", "u2"]
    assert len({*server.idempotency_keys}) == 3


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((400, '{"error": {"message": "the prompt is too long"}}'), "the prompt is too long"),
        ((502, "<html>bad gateway</html>"), "answered 502: <html>bad gateway"),
        (stream(TURN, ("error", ERROR)), "process is gone"),
        ((200, "id: 0\nevent: turn\ndata: {nonsense\n\n"), "does not speak MOSS's API"),
        ((200, "id: 0\nevent: turn\ndata: {}\n\n"), "does not speak MOSS's API"),
        ((200, 'id: 0\nevent: delta\ndata: {"text": 5}\n\n'), "does not speak MOSS's API"),
        ((200, "id: x\nevent: delta\ndata: {}\n\n"), "does not speak MOSS's API"),
        (stream(TURN, ("done", {"turn": {"id": "1"}})), "does not speak MOSS's API"),
    ],
)
def test_a_failed_turn_is_a_chat_error_and_never_loses_the_chat(
    server: ScriptedServer, client: ChatClient, reply: tuple[int, str], message: str
) -> None:
    server.replies += [told("hi"), reply, told("hi")]
    [*client.ask("hello")]
    with pytest.raises(ChatError, match=message):
        list(client.ask("bad"))
    assert text_of([*client.ask("again")]) == "hi"
    assert len({*turns_asked_for(server)}) == 1


def test_a_server_that_does_not_come_back_fails_with_what_it_said(
    server: ScriptedServer, client: ChatClient
) -> None:
    server.replies += [stream(TURN, HI), *[(503, "starting")] * 20]
    events: list[TurnEvent] = []
    with pytest.raises(ChatError, match="answered 503: starting"):
        for event in client.ask("hello"):
            events.append(event)
    assert text_of(events) == "hi" and sum(isinstance(e, Waiting) for e in events) > 2


@pytest.mark.parametrize("away", [(503, "x"), (502, ""), (429, ""), (404, "no route"), (500, "")])
def test_who_comes_back_waits_for_what_is_not_the_application_yet(
    server: ScriptedServer, client: ChatClient, away: tuple[int, str]
) -> None:
    rest = stream(("delta", {"text": " there"}), ("done", {"turn": turn(1, "hi there")}), first=2)
    server.replies += [stream(TURN, HI), away, rest]
    assert text_of([*client.ask("hello")]) == "hi there"


@pytest.mark.parametrize("code", ["turn_not_found", "session_not_found"])
def test_a_turn_that_is_gone_is_not_waited_for(
    server: ScriptedServer, client: ChatClient, code: str
) -> None:
    gone = f'{{"error": {{"message": "it is gone", "code": "{code}"}}}}'
    server.replies += [stream(TURN, HI), (404, gone)]
    with pytest.raises(ChatError, match="it is gone"):
        list(client.ask("hello"))


def test_an_error_of_the_connection_is_not_the_turns(
    server: ScriptedServer, client: ChatClient
) -> None:
    status, begun = stream(TURN, HI)
    lost = f'{begun}event: error\ndata: {{"error": {{"message": "store", "type": "server_error"}}}}'
    rest = stream(("done", {"turn": turn(1, "hi")}), first=2)
    server.replies += [(status, f"{lost}\n\n"), rest]
    events = [*client.ask("hello")]
    assert [type(event) for event in events] == [Delta, Waiting, Done]


def test_events_that_come_twice_and_those_of_other_kinds_count_for_nothing(
    server: ScriptedServer, client: ChatClient
) -> None:
    html = 'event: html\ndata: {"block": 0, "html": "hi"}\n\n'
    again = stream(HI, ("delta", {"text": "!"}), ("done", {"turn": turn(1, "hi!")}), first=1)
    server.replies += [(200, f": ping\n\n{stream(TURN, HI)[1]}{html}"), again]
    assert text_of([*client.ask("hello")]) == "hi!"


@pytest.mark.parametrize(
    ("stored", "events"), [("hi!", [Delta("!")]), ("ho", [Reset(), Delta("ho")])]
)
def test_a_turn_that_is_told_anew_goes_on_where_it_was(
    server: ScriptedServer, client: ChatClient, stored: str, events: list[TurnEvent]
) -> None:
    end = ("delta", {"text": stored}), ("done", {"turn": turn(1, stored)})
    server.replies += [stream(TURN, HI), stream(("reset", {}), *end, first=1_000_000)]
    heard = [*client.ask("hello")]
    assert heard[2:-1] == events


def test_line_separators_in_a_reply_are_text(server: ScriptedServer, client: ChatClient) -> None:
    said = "a\u2028b\u2029c\x85d\x0b\x0c\x1c\x1d\x1e"
    server.replies.append(told(said))
    assert text_of([*client.ask(said)]) == said
    assert server.bodies[0]["user"] == said


def test_text_in_another_encoding_is_not_sent_and_the_chat_goes_on(
    server: ScriptedServer, client: ChatClient
) -> None:
    server.replies += [told(), told()]
    [*client.ask("hello")]
    with pytest.raises(ChatError, match="not in the encoding of this terminal"):
        list(client.ask("你好".encode("gbk").decode("utf-8", "surrogateescape")))
    [*client.ask("again")]
    assert [body["user"] for body in server.bodies] == ["hello", "again"]


def test_who_has_no_connection_fails_at_once() -> None:
    client = ChatClient(f"http://127.0.0.1:{free_port()}")
    for call in (client.check, lambda: list(client.ask("hello"))):
        with pytest.raises(ChatError, match="is `moss serve` running"):
            call()
    client.close()


def test_a_server_that_was_lost_between_two_turns_fails_at_once(
    server: ScriptedServer, client: ChatClient
) -> None:
    server.replies.append(told("hi"))
    [*client.ask("hello")]
    client.api.url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ChatError, match="is `moss serve` running"):
        list(client.ask("again"))


def test_an_invalid_url_is_a_chat_error() -> None:
    client = ChatClient("nonsense")
    with pytest.raises(ChatError, match="nonsense"):
        list(client.ask("hello"))
    client.close()


def test_a_uid_is_no_path(server: ScriptedServer, client: ChatClient) -> None:
    with pytest.raises(ChatError, match="no such chat"):
        client.join("../../version")
    assert server.paths[-1] == "GET /v1/sessions/..%2F..%2Fversion"


def test_a_key_is_shown_to_the_server(server: ScriptedServer) -> None:
    server.replies += [told()] * 2
    for key in ("moss-key", None):
        client = ChatClient(server.url, key)
        list(client.ask("hi"))
        client.close()
    assert server.keys == ["Bearer moss-key"] * 2 + [None] * 2
    for wrong in ("ключ", "a\nb"):
        with pytest.raises(ChatError, match="no header can have") as refused:
            ChatClient("http://127.0.0.1:1", wrong)
        assert wrong not in str(refused.value)
