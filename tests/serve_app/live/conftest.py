"""Live turns on every server that we promise to work with."""

from collections.abc import AsyncIterator

import pytest

from tests.serve_app.live.ingresses import Ingresses
from tests.serve_app.store_server import StoreServer


@pytest.fixture(scope="session")
def store_url(server: StoreServer) -> str:
    return server.url


@pytest.fixture
async def ingresses(server: StoreServer) -> AsyncIterator[Ingresses]:
    server.command("FLUSHALL")  # or the ingresses of the last test would seem to be there still
    made = Ingresses(server.url)
    yield made
    await made.aclose()
