"""The chat client and `moss chat` against a scripted server, with every kind of failure."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from serve_app.bench.load.server_process import free_port
from serve_app.client.chat_client import ChatClient, ChatError
from tests.support.moss_command import run_moss

DONE = {"response": "\n<|MOSS|>: hi there", "history": [], "status": 200, "uid": "u1"}


class Server(ThreadingHTTPServer):
    """Answers with `replies` in order; `bodies` are the requests it got."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: list[tuple[int, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/livez" else 404)
        self.end_headers()

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.server.bodies.append(json.loads(self.rfile.read(length)))
        self.server.keys.append(self.headers["Authorization"])
        status, body = self.server.replies.pop(0)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def client(server: Server) -> Iterator[ChatClient]:
    client = ChatClient(f"http://127.0.0.1:{server.server_port}")
    yield client
    client.close()


def stream(*events: dict[str, Any]) -> tuple[int, str]:
    return 200, "".join(f"data: {json.dumps(event)}\n\n" for event in events)


def test_ask_yields_deltas_and_continues_the_uid(server: Server, client: ChatClient) -> None:
    server.replies += [
        stream({"delta": "hi "}, {"delta": "there"}, DONE),
        stream(DONE),
        stream(DONE),
    ]
    assert list(client.ask("hello")) == ["hi ", "there"]
    list(client.ask("again"))
    client.clear()
    list(client.ask("anew"))
    assert server.bodies == [
        {"prompt": "hello", "stream": True},
        {"prompt": "again", "stream": True, "uid": "u1"},
        {"prompt": "anew", "stream": True},
    ]


def test_comments_in_a_stream_are_ignored(server: Server, client: ChatClient) -> None:
    status, events = stream({"delta": "hi"}, DONE)
    server.replies.append((status, ": ping\n\n" + events.replace("\n\n", "\n\n: ping\n\n")))
    assert list(client.ask("hello")) == ["hi"]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((400, '{"error": {"message": "the prompt is too long"}}'), "the prompt is too long"),
        ((502, "<html>bad gateway</html>"), "answered 502: <html>bad gateway"),
        (stream({"error": {"message": "the model's process is gone"}}), "process is gone"),
        (stream({"delta": "hi"}), "before the reply was complete"),
        ((200, "data: {nonsense\n\n"), "does not speak MOSS's API"),
        ((200, "data: {}\n\n"), "does not speak MOSS's API"),
    ],
)
def test_a_failure_is_a_chat_error_and_keeps_the_uid(
    server: Server, client: ChatClient, reply: tuple[int, str], message: str
) -> None:
    server.replies += [reply, stream(DONE)]
    with pytest.raises(ChatError, match=message):
        list(client.ask("hello"))
    list(client.ask("again"))
    assert "uid" not in server.bodies[1]


def test_line_separators_in_a_reply_are_text_and_the_chat_goes_on(
    server: Server, client: ChatClient
) -> None:
    said = "a\u2028b\u2029c\x85d\x0b\x0c\x1c\x1d\x1e"
    done = DONE | {"response": said, "history": [[said, said]]}
    text = json.dumps({"delta": said}, ensure_ascii=False)
    body = f"data: {text}\n\ndata: {json.dumps(done, ensure_ascii=False)}\n\n"
    server.replies += [(200, body), stream(DONE)]
    assert "".join(client.ask(said)) == said
    list(client.ask("again"))
    assert [body.get("uid") for body in server.bodies] == [None, "u1"]
    assert server.bodies[0]["prompt"] == said


def test_text_in_another_encoding_is_not_sent_and_the_chat_goes_on(
    server: Server, client: ChatClient
) -> None:
    server.replies += [stream(DONE), stream(DONE)]
    list(client.ask("hello"))
    with pytest.raises(ChatError, match="not in the encoding of this terminal"):
        list(client.ask("你好".encode("gbk").decode("utf-8", "surrogateescape")))
    list(client.ask("again"))
    assert [body.get("uid") for body in server.bodies] == [None, "u1"]


@pytest.mark.parametrize("reply", [(500, "broken"), (200, "data: {\n\n"), (200, "data: {}\n\n")])
def test_a_failed_turn_never_loses_the_chat(
    server: Server, client: ChatClient, reply: tuple[int, str]
) -> None:
    server.replies += [stream(DONE), reply, stream(DONE)]
    list(client.ask("hello"))
    with pytest.raises(ChatError):
        list(client.ask("bad"))
    list(client.ask("again"))
    assert [body.get("uid") for body in server.bodies] == [None, "u1", "u1"]


def test_check_accepts_a_live_server(client: ChatClient) -> None:
    client.check()


def test_moss_chat_without_a_server_fails_before_the_prompt() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    shown = run_moss("chat", "--url", url, stdin="hello\n")
    assert shown.returncode == 1
    assert shown.stdout == ""
    assert "is `moss serve` running" in shown.stderr


def test_an_unreachable_server_is_a_chat_error() -> None:
    client = ChatClient(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ChatError, match="is `moss serve` running"):
        list(client.ask("hello"))
    client.close()


def test_an_invalid_url_is_a_chat_error() -> None:
    client = ChatClient("nonsense")
    with pytest.raises(ChatError, match="nonsense"):
        list(client.ask("hello"))
    client.close()


def test_moss_chat_clear_starts_a_new_chat(server: Server) -> None:
    server.replies = [(200, f"data: {json.dumps(DONE)}\n\n")] * 3
    url = f"http://127.0.0.1:{server.server_port}"
    shown = run_moss("chat", "--url", url, stdin="one\ntwo\nclear\nthree\nstop\n")
    assert shown.returncode == 0
    assert [body.get("uid") for body in server.bodies] == [None, "u1", None]


def test_moss_chat_to_loopback_uses_no_proxy(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ALL_PROXY", "HTTP_PROXY", "all_proxy", "http_proxy"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:9")
    server.replies = [stream({"delta": "hi"}, DONE)]
    shown = run_moss("chat", "--url", f"http://127.0.0.1:{server.server_port}", stdin="one\n")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "hi" in shown.stdout
    shown = run_moss("chat", "--url", "http://moss.example", stdin="one\n")
    assert shown.returncode == 1
    assert len(shown.stderr.splitlines()) == 1 and "proxy" in shown.stderr


def test_moss_chat_survives_a_line_in_another_encoding(server: Server) -> None:
    url = f"http://127.0.0.1:{server.server_port}"
    for encoding, valid in (("utf-8", "你好"), ("gbk", "你好"), ("ascii", "hello")):
        server.bodies.clear()
        server.replies = [stream({"delta": "你好 🦊"}, DONE), stream(DONE)]
        typed = [valid.encode(encoding), "\xff\xfe".encode("latin-1"), b"again"]
        done = subprocess.run(
            [sys.executable, "-m", "serve_app.cli.main", "chat", "--url", url],
            input=b"\n".join(typed),
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": encoding},
            check=True,
        )
        told = done.stderr.decode(encoding)
        assert told == "moss: not sent: the text is not in the encoding of this terminal\n"
        assert [body["prompt"] for body in server.bodies] == [valid, "again"]
        assert [body.get("uid") for body in server.bodies] == [None, "u1"]
        if encoding == "gbk":  # which has no fox
            assert "你好 ?" in done.stdout.decode(encoding)


def test_a_key_is_shown_to_the_server(server: Server) -> None:
    server.replies += [(200, f"data: {json.dumps(DONE)}\n\n")] * 2
    for key in ("moss-key", None):
        client = ChatClient(url_of(server), key)
        list(client.ask("hi"))
        client.close()
    assert server.keys == ["Bearer moss-key", None]
    for wrong in ("ключ", "a\nb"):
        with pytest.raises(ChatError, match="no header can have") as refused:
            ChatClient("http://127.0.0.1:1", wrong)
        assert wrong not in str(refused.value)


def test_the_key_of_moss_chat_is_that_of_the_environment(server: Server) -> None:
    server.replies.append((200, f"data: {json.dumps(DONE)}\n\n"))
    shown = subprocess.run(
        [sys.executable, "-m", "serve_app.cli.main", "chat", "--url", url_of(server)],
        input="hi\n",
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "MOSS_API_KEY": "moss-key"},
    )
    assert shown.returncode == 0 and server.keys == ["Bearer moss-key"]


def url_of(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}"
