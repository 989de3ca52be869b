"""Logs in both formats: what each line says, and that none has what a client sent."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serve_app.access.api_key import make_key
from serve_app.observe.access import SHED_HEADER
from serve_app.observe.logs import PACKAGES, LogFormat, configure_logs
from serve_app.observe.redact import redact
from serve_app.request_context import CURRENT, RequestRecord
from tests.serve_app.observe.samples import Samples
from tests.support.chat_fakes import think_of
from tests.support.site import Site

KEY = b"of this server"
CANARY = "canary7f3a"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in PACKAGES]
    before = [(each, each.level, [*each.handlers]) for each in loggers]
    yield
    for logger, level, handlers in before:
        for handler in {*logger.handlers} - {*handlers}:
            handler.close()
        logger.level, logger.handlers = level, handlers


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


async def send_canaries(site: Site) -> None:
    """In every field of requests to many routes, some of which fail, one by a bug."""
    say = f"{CANARY} text"
    messages = [{"role": "system", "content": say}, {"role": "user", "content": say}]
    headers = {
        "Authorization": f"Bearer moss-{CANARY}.{CANARY}",
        "Cookie": f"moss={CANARY}",
        "Idempotency-Key": CANARY,
        "User-Agent": CANARY,
        "X-Request-Id": "my-id",
    }
    site.model.think = think_of(f'Calculate("{CANARY}")')
    site.model.reply = lambda prompt: f" {CANARY}<eom>"
    site.plugins.answers = {CANARY: ValueError(say)}
    fields = {"stop": [CANARY], "uid": CANARY, "model": CANARY, "nonsense": CANARY}
    chat = "/v1/chat/completions"
    bodies: list[tuple[str, dict[str, object]]] = [
        ("/", {"prompt": say}),
        ("/", {"prompt": say, "stream": True, "plugins": ["calculator"]}),
        (chat, {"messages": messages, "stop": [CANARY], "user": CANARY, "seed": CANARY}),
        (chat, {"messages": messages, "stop": [CANARY], "user": CANARY}),
        ("/v1/completions", {"prompt": say, "stop": [CANARY], "max_tokens": 4}),
        ("/api/inference", {"request": say}),
        ("/v1/sessions", {"title": CANARY}),
        (f"/v1/sessions/{CANARY}/turns", {"user": say}),
        (f"/{CANARY}", {}),
    ]
    bodies += [("/", {"prompt": say, name: value}) for name, value in fields.items()]
    for path, body in bodies:
        await site.client.post(path, json=body, headers=headers, params={"q": CANARY})
    session = (await site.client.post("/v1/sessions", json={})).json()["id"]
    turns = f"/v1/sessions/{session}/turns"
    told = await site.client.post(turns, json={"user": say, "stream": True}, headers=headers)
    assert CANARY in told.text
    await site.client.post("/", content=f'{{"{CANARY}'.encode(), headers=headers)

    def bug(prompt: str) -> str:
        raise RuntimeError(say)

    site.model.think = bug
    failed = await site.client.post("/", json={"prompt": say})
    assert failed.status_code == 500


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_no_line_has_anything_that_a_client_sent(
    site: Site, tmp_path: Path, log_format: LogFormat
) -> None:
    path = tmp_path / "log"
    configure_logs(log_format, path, KEY)
    await send_canaries(site)
    text = path.read_text("utf-8")
    assert text.count("serve_app.observe.access") >= 15, "a line a request"
    assert "my-id" in text
    assert "RuntimeError at " in text, "the bug is there, by where it is"
    assert CANARY not in text
    logging.getLogger("serve_app").warning(CANARY)
    assert CANARY in path.read_text("utf-8"), "the file is the one that is read"


async def test_an_access_line_says_who_what_and_how_long(site: Site, tmp_path: Path) -> None:
    configure_logs("json", path := tmp_path / "log", KEY)
    body = (await site.post()).json()
    await site.post(uid=body["uid"])
    site.service.drain.begin()
    await site.post()
    await site.client.get("/livez")
    first, second, refused = lines_of(path)
    assert (first["method"], first["route"], first["status"]) == ("POST", "/", 200)
    assert first["prompt_tokens"] > first["completion_tokens"] > 0
    assert first["uid"] == second["uid"], "the same chat"
    assert len(first["uid"]) == 16
    assert body["uid"] not in path.read_text("utf-8")
    assert first["request_id"] != second["request_id"]
    assert (refused["status"], refused["error"]) == (503, "draining")
    assert {"time", "level", "message", "logger", "owner"} <= {*first}


async def test_what_the_proxy_has_shed_is_logged_and_counted(site: Site, tmp_path: Path) -> None:
    configure_logs("json", path := tmp_path / "log", KEY)
    for shed in ("3", "none", "4"):
        await site.client.post("/", json={"prompt": "hi"}, headers={SHED_HEADER.decode(): shed})
    first, second, third = lines_of(path)
    assert (first["shed"], third["shed"]) == (3, 4) and "shed" not in second
    samples = Samples((await site.metrics.text()).decode())
    assert samples.get("moss:rejected_total", reason="queue_full") == 7


async def test_another_server_hashes_otherwise(tmp_path: Path) -> None:
    digests = []
    for key in (b"one", b"other", b"one"):
        configure_logs("json", path := tmp_path / key.decode(), key)
        token = CURRENT.set(RequestRecord("r", owner="me"))
        logging.getLogger("moss_tp.x").info("hello")
        CURRENT.reset(token)
        digests.append(lines_of(path)[-1]["owner"])
    assert digests[0] == digests[2] != digests[1]


@pytest.mark.parametrize(
    "secret",
    [
        "moss-ab12.s3cretS3cret",
        "moss-" + "a1" * 16,
        "Authorization: Bearer s3cret",
        "{'authorization': 's3cret'}",
        "bearer s3cret",
        "api_key=s3cret",
        "redis://user:s3cret@host:6379",
    ],
)
def test_keys_are_redacted_wherever_they_stand(secret: str) -> None:
    shown = redact(f"it failed: {secret}, so")
    assert "s3cret" not in shown
    assert "a1a1" not in shown
    assert shown.startswith("it failed: ")
    assert "[redacted]" in shown


def test_names_of_models_are_no_keys() -> None:
    text = "fnlp/moss-moon-003-sft-plugin-int4 and moss-nano"
    assert redact(text) == text


def test_real_keys_are_redacted() -> None:
    _, secret = make_key("me")
    assert redact(f"key {secret}!") == "key [redacted]!"
