"""A real store for the histories of this process, and a place for what their plugins received."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_app.store.embedded import EmbeddedStore


@pytest.fixture(scope="session")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedStore(tmp_path_factory.mktemp("store")) as server:
        yield server.url


@pytest.fixture
def effects(tmp_path: Path) -> Path:
    return tmp_path / "calls.txt"
