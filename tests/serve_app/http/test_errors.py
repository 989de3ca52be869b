"""Every error has the form of the API contract, and nothing is stored."""

import asyncio
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moss_tp.errors import EngineDeadError, QueueFullError
from serve_app.sessions.redis import RedisSessionStore
from tests.support.site import Site, events_of, make_site

BAD_BODIES: list[tuple[bytes, str | None]] = [
    (b"", None),
    (b"{", None),
    (b"hi", None),
    (b"\xff\xfe", None),
    (b'{"prompt": "\xff"}', None),
    (b'{"prompt": "\\ud800"}', None),
    (b"[" * 50_000, None),
    (b"null", None),
    (b'["prompt"]', None),
    (b"{}", "prompt"),
    (b'{"prompt": ""}', "prompt"),
    (b'{"prompt": null}', "prompt"),
    (b'{"prompt": 5}', "prompt"),
    (b'{"prompt": ["a"]}', "prompt"),
    (b'{"prompt": "a", "uid": 5}', "uid"),
    (b'{"prompt": "a", "max_length": "2048"}', "max_length"),
    (b'{"prompt": "a", "max_length": 1.5}', "max_length"),
    (b'{"prompt": "a", "max_length": true}', "max_length"),
    (b'{"prompt": "a", "max_length": 0}', "max_length"),
    (b'{"prompt": "a", "max_length": 1e999}', "max_length"),
    (b'{"prompt": "a", "max_length": %s}' % (b"9" * 4000), "max_length"),
    (b'{"prompt": "a", "temperature": NaN}', None),
    (b'{"prompt": "a", "other": NaN}', None),
    (b'{"prompt": "a", "temperature": Infinity}', None),
    (b'{"prompt": "a", "temperature": 1e999}', "temperature"),
    (b'{"prompt": "a", "other": 1e999}', "other"),
    (b'{"prompt": "a", "other": [{"deep": 1%s}]}' % (b"0" * 400), "other"),
    (b'{"prompt": "a", "other": %s}' % (b"9" * 60_000), None),
    (b'{"prompt": "a", "other": {"x": 1, "x": 1}}', None),
    (b'{"prompt": "a", "prompt": "b"}', None),
    (b'{"prompt": "a", "\\udc00": 1}', None),
    (b'{"prompt": "a", "other": "\xed\xa0\x80"}', None),
    (b'{"prompt": "a", "other": %s' % (b"[" * 60_000), None),
    (b'{"prompt": "a", "other": %s1%s' % (b'{"a":' * 9_000, b"}" * 9_001), None),
    (b'{"prompt": "a", "temperature": -1}', "temperature"),
    (b'{"prompt": "a", "temperature": "hot"}', "temperature"),
    (b'{"prompt": "a", "top_p": 0}', "top_p"),
    (b'{"prompt": "a", "top_p": 1.1}', "top_p"),
    (b'{"prompt": "a", "stream": "yes"}', "stream"),
    (b'{"prompt": "a", "plugins": "calculator"}', "plugins"),
    (b'{"prompt": "a", "plugins": [1]}', "plugins.0"),
    (b'{"prompt": "a", "plugins": ["rm"]}', "plugins"),
    (b'{"prompt": "a", "max_time": 0}', "max_time"),
]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["prompt", "uid", "max_length", "top_p", "temperature", "stream", "plugins", "max_time", "x"]
)


ANY_TEXT = st.text(st.characters())  # including lone surrogates
BODIES = st.builds(
    lambda body, prompt: json.dumps(body | {"prompt": prompt}),
    st.dictionaries(FIELDS, JSON, max_size=2),
    ANY_TEXT,
)


@pytest.mark.parametrize(("body", "param"), BAD_BODIES)
async def test_a_bad_body_is_a_400(site: Site, body: bytes, param: str | None) -> None:
    response = await site.client.post("/", content=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert error["type"] == "invalid_request_error" and error["param"] == param
    assert error["message"] and site.model.prompts == []


@given(BODIES | JSON.map(json.dumps) | st.binary())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_body_causes_a_server_error(store_url: str, body: str | bytes) -> None:
    async def post() -> None:
        store = RedisSessionStore(store_url)
        site = make_site(store)
        async with site:
            response = await site.client.post("/", content=body)
        await store.close()
        assert response.status_code in (200, 400, 408), response.text

    asyncio.run(post())


async def test_a_prompt_that_is_too_long_is_a_400(site: Site) -> None:
    answer = (await site.post()).json()
    for body in ({"prompt": "长" * 5000}, {"max_length": 100}):
        response = await site.post(uid=answer["uid"], **body)
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "context_length_exceeded"
    assert len((await site.post(uid=answer["uid"])).json()["history"]) == 2


async def test_a_body_over_the_limit_is_a_413(site: Site) -> None:
    response = await site.post(prompt="a" * 64 * 1024)
    assert response.status_code == 413
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert site.model.prompts == []


async def test_an_unknown_model_is_a_404(site: Site) -> None:
    response = await site.post(model="gpt-4")
    assert response.status_code == 404
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")


async def test_an_unknown_path_or_method_is_a_404_or_405(site: Site) -> None:
    for response, status in (
        (await site.client.get("/nowhere"), 404),
        (await site.client.put("/"), 405),
    ):
        assert response.status_code == status
        assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_busy_session_is_a_409(site: Site, stream: bool) -> None:
    answer = (await site.post()).json()
    go_on = asyncio.Event()

    async def wait(is_reply: bool, num_tokens: int) -> None:
        await go_on.wait()

    site.model.wait = wait
    running = asyncio.create_task(site.post(uid=answer["uid"], stream=stream))
    while not site.model.num_running:
        await asyncio.sleep(0.01)
    busy = await site.post(uid=answer["uid"], stream=stream)
    assert busy.status_code == 409 and int(busy.headers["Retry-After"]) >= 1
    assert busy.json()["error"]["code"] == "session_busy"
    go_on.set()
    assert (await running).status_code == 200


async def test_a_running_key_is_a_409(site: Site) -> None:
    headers = {"Idempotency-Key": os.urandom(16).hex()}
    go_on = asyncio.Event()

    async def wait(is_reply: bool, num_tokens: int) -> None:
        await go_on.wait()

    site.model.wait = wait
    body = {"prompt": "一"}
    running = asyncio.create_task(site.client.post("/", json=body, headers=headers))
    while not site.model.num_running:
        await asyncio.sleep(0.01)
    second = await site.client.post("/", json=body, headers=headers)
    assert second.status_code == 409 and "Retry-After" in second.headers
    assert second.json()["error"]["code"] == "idempotency_in_progress"
    go_on.set()
    assert (await running).status_code == 200


@pytest.mark.parametrize("key", ["", "a b", "short", "x" * 256, "é" * 20])
async def test_a_bad_key_is_a_400(site: Site, key: str) -> None:
    headers = [(b"Idempotency-Key", key.encode("latin-1"))]
    response = await site.client.post("/", json={"prompt": "hi"}, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "Idempotency-Key"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (QueueFullError("full"), 429, "queue_full"),
        (EngineDeadError("a rank is dead"), 500, "engine_error"),
        (RuntimeError("secret"), 500, "engine_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_of_the_engine_has_its_status(
    site: Site, error: Exception, status: int, code: str, stream: bool
) -> None:
    async def fail(is_reply: bool, num_tokens: int) -> None:
        raise error

    site.model.wait = fail
    response = await site.post(stream=stream)
    assert response.status_code == status and "Retry-After" in response.headers
    assert response.json()["error"]["code"] == code and "secret" not in response.text


async def test_an_error_after_the_first_byte_is_the_last_event(site: Site) -> None:
    async def fail(is_reply: bool, num_tokens: int) -> None:
        if is_reply and num_tokens == 3:
            raise EngineDeadError("a rank is dead")

    site.model.wait = fail
    response = await site.post(stream=True)
    assert response.status_code == 200
    *deltas, last = events_of(response)
    assert "".join(delta["delta"] for delta in deltas) == "tu"
    assert last["error"]["code"] == "engine_error" and last["error"]["message"] == "a rank is dead"


async def test_a_deadline_before_the_reply_is_a_408(site: Site) -> None:
    async def hang(is_reply: bool, num_tokens: int) -> None:
        await asyncio.sleep(60)

    site.model.wait = hang
    response = await site.post(max_time=0.1)
    assert response.status_code == 408
    assert response.json()["error"]["code"] == "deadline_exceeded"
