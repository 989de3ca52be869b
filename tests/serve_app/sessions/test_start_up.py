"""A store that may lose chats is refused at start-up, unless that is allowed."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from moss_tp.errors import ConfigError
from serve_app.sessions.redis import RedisSessionStore
from tests.serve_app.store_server import StoreServer


@contextmanager
def setting(server: StoreServer, name: str, value: str, back: str) -> Iterator[None]:
    server.command("CONFIG", "SET", name, value)
    try:
        yield
    finally:
        server.command("CONFIG", "SET", name, back)


@pytest.mark.parametrize(
    ("name", "value", "back", "words"),
    [
        ("maxmemory-policy", "allkeys-lru", "noeviction", "set its maxmemory-policy to noeviction"),
        ("maxmemory-policy", "volatile-ttl", "noeviction", "would lose chats"),
        ("appendonly", "no", "yes", "set its appendonly to yes"),
    ],
)
async def test_a_store_that_may_lose_chats_is_refused_unless_that_is_allowed(
    store: RedisSessionStore, server: StoreServer, name: str, value: str, back: str, words: str
) -> None:
    assert await store.check() == []
    with setting(server, name, value, back):
        with pytest.raises(ConfigError, match=f"{words}.*--allow-volatile-store"):
            await store.check()
        (warning,) = await store.check(may_be_volatile=True)
        assert words in warning
    assert await store.check() == []


async def test_a_store_that_writes_once_a_second_is_warned_of(
    store: RedisSessionStore, server: StoreServer
) -> None:
    with setting(server, "appendfsync", "everysec", "always"):
        (warning,) = await store.check()
        assert "power loss" in warning
