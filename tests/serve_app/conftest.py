"""One real session store per test run; for each test a client of it, an application and a chat."""

import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from serve_app.observe.logs import PACKAGES
from serve_app.sessions.redis import RedisSessionStore
from serve_app.store.embedded import EmbeddedStore
from tests.serve_app.store_server import StoreServer
from tests.support.chat import Chat
from tests.support.chat_fakes import FakeModel, FakePlugins
from tests.support.site import Site, make_site

PROGRAMS = ["valkey", pytest.param("redis-server", marks=pytest.mark.needs("redis-server"))]


@pytest.fixture(autouse=True)
def own_logs() -> Iterator[None]:
    """What a test's server does with the logs of its process ends with the test."""
    loggers = [logging.getLogger(name) for name in PACKAGES]
    before = [([*logger.handlers], logger.level) for logger in loggers]
    yield
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        for handler in {*logger.handlers} - {*handlers}:
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(level)


@pytest.fixture(scope="session", params=PROGRAMS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StoreServer]:
    """Every server that we promise to work with, for tests of what is stored."""
    with StoreServer(tmp_path_factory.mktemp("store"), request.param) as running:
        yield running


@pytest.fixture(scope="session")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedStore(tmp_path_factory.mktemp("store")) as server:
        yield server.url


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[RedisSessionStore]:
    client = RedisSessionStore(store_url)
    yield client
    await client.close()


@pytest.fixture(params=PROGRAMS)
def own_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StoreServer]:
    """A server that the test may stop or break."""
    with StoreServer(tmp_path_factory.mktemp("own"), request.param) as running:
        yield running


@pytest.fixture
async def site(store: RedisSessionStore) -> AsyncIterator[Site]:
    async with make_site(store) as made:
        yield made


@pytest.fixture
def chat(store: RedisSessionStore) -> Chat:
    return Chat(store, FakeModel(), FakePlugins(patience_s=0.3))
