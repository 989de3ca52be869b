"""Live turns on every server that we promise to work with."""

from collections.abc import AsyncIterator

import pytest

from tests.serve_app.live.ingresses import Ingresses
from tests.serve_app.store_server import StoreServer


@pytest.fixture(scope="session")
def store_url(server: StoreServer) -> str:
    return server.url


@pytest.fixture
async def ingresses(store_url: str) -> AsyncIterator[Ingresses]:
    made = Ingresses(store_url)
    yield made
    await made.close()
