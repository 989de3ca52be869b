"""The store's tests run on every server that we promise to work with."""

import pytest

from tests.serve_app.store_server import StoreServer


@pytest.fixture(scope="session")
def store_url(server: StoreServer) -> str:
    return server.url
