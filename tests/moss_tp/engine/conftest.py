"""One tiny checkpoint for all tests of the engine on a real model."""

import pytest

from tests.support.tiny_moss import make_checkpoint


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model directory: 4 heads, an odd vocabulary, 256 positions, fp32."""
    return str(make_checkpoint(tmp_path_factory.mktemp("engine") / "tiny"))
