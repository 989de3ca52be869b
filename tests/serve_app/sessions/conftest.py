"""The store's tests run on every server that we promise to work with."""

from collections.abc import Iterator

import pytest

from tests.serve_app.conftest import PROGRAMS
from tests.serve_app.store_server import StoreServer


@pytest.fixture(scope="session", params=PROGRAMS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StoreServer]:
    with StoreServer(tmp_path_factory.mktemp("store"), request.param) as running:
        yield running


@pytest.fixture(scope="session")
def store_url(server: StoreServer) -> str:
    return server.url
