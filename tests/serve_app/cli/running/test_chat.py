"""`moss chat` without a terminal, against a scripted server: lines in, text out."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_app.bench.load.server_process import free_port
from serve_app.cli.running import chat
from serve_app.cli.running.screen import MOSS
from tests.serve_app.client.scripted_server import ScriptedServer, scripted_server, told
from tests.support.moss_command import run_moss


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


def talk(server: ScriptedServer, typed: str) -> "subprocess.CompletedProcess[str]":
    return run_moss("chat", "--url", server.url, stdin=typed)


def test_a_chat_of_lines(server: ScriptedServer) -> None:
    failed = 400, '{"error": {"message": "too\\nlong"}}'
    server.replies += [told("Hi ", "*there*"), told(), failed, told("Better"), told("New")]
    typed = "  hello \n\nagain\nlong\ntwo\\\nlines\n/usr/bin\nclear\n/nonsense\nstop\nnot read\n"
    server.replies.append(told("Anew"))
    shown = talk(server, typed)
    assert shown.returncode == 0
    assert [body["user"] for body in server.bodies] == [
        *("hello", "again", "long", "two\nlines", "/usr/bin"),
    ]
    assert shown.stderr == "moss: too long\nmoss: there is no command /nonsense: /help lists them\n"
    lines = shown.stdout.splitlines()
    assert lines[0] == chat.GREETING
    assert any(line.endswith(f"{MOSS}Hi *there*") for line in lines), "text as it is"
    assert shown.stdout.count(MOSS) == 4, "an empty reply has its line too"
    assert "(a new chat)" in shown.stdout


def test_the_end_of_input_ends_the_chat_whose_uid_is_told(server: ScriptedServer) -> None:
    server.replies.append(told("Hi"))
    shown = talk(server, "hello")
    assert shown.returncode == 0
    last = shown.stdout.splitlines()[-1]
    assert last == f"(go on with this chat: moss chat --url {server.url} --chat u1)"
    assert "--chat" not in talk(server, "").stdout


def test_clear_starts_a_new_chat(server: ScriptedServer) -> None:
    server.replies = [told()] * 3
    talk(server, "one\ntwo\nclear\nthree\nstop\n")
    paths = [path.split("/")[3] for path in server.paths if path.endswith("/turns")]
    assert paths == ["u1", "u1", "u2"]


def test_without_a_server_no_prompt_is_shown() -> None:
    shown = run_moss("chat", "--url", f"http://127.0.0.1:{free_port()}", stdin="hello\n")
    assert shown.returncode == 1 and shown.stdout == ""
    assert len(shown.stderr.splitlines()) == 1 and "is `moss serve` running?" in shown.stderr


def test_a_chat_that_is_not_there_is_one_line(server: ScriptedServer) -> None:
    shown = run_moss("chat", "--url", server.url, "--chat", "nonsense", stdin="hello\n")
    assert (shown.returncode, shown.stdout, shown.stderr) == (1, "", "moss: no such chat\n")


def test_loopback_uses_no_proxy(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALL_PROXY", "HTTP_PROXY", "all_proxy", "http_proxy"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:9")
    server.replies = [told("hi")]
    shown = talk(server, "one\n")
    assert (shown.returncode, shown.stderr) == (0, "") and "hi" in shown.stdout
    shown = run_moss("chat", "--url", "http://moss.example", stdin="one\n")
    assert shown.returncode == 1
    assert len(shown.stderr.splitlines()) == 1 and "proxy" in shown.stderr


@pytest.mark.parametrize(
    ("encoding", "valid"), [("utf-8", "你好"), ("gbk", "你好"), ("ascii", "hello")]
)
def test_a_line_in_another_encoding_costs_that_line(
    server: ScriptedServer, encoding: str, valid: str
) -> None:
    server.replies = [told("你好 🦊"), told()]
    typed = [valid.encode(encoding), "\xff\xfe".encode("latin-1"), b"again"]
    done = subprocess.run(
        [sys.executable, "-m", "serve_app.cli.main", "chat", "--url", server.url],
        input=b"\n".join(typed),
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        check=True,
    )
    problem = "moss: not sent: the text is not in the encoding of this terminal\n"
    assert done.stderr.decode(encoding) == problem
    assert [body["user"] for body in server.bodies] == [valid, "again"]
    if encoding == "gbk":  # which has no fox
        assert "你好 ?" in done.stdout.decode(encoding)


def test_the_key_is_that_of_the_environment(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOSS_API_KEY", "moss-key")
    server.replies.append(told())
    assert talk(server, "hi\n").returncode == 0
    assert {*server.keys} == {"Bearer moss-key"}


def test_colours_that_are_forced_are_none_in_a_pipe(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    server.replies.append(told("**hi**"))
    shown = talk(server, "hi\n")
    assert "**hi**" in shown.stdout and "\x1b" not in shown.stdout
