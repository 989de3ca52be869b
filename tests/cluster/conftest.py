"""A local Ray for each test module, and a tiny checkpoint."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.launch.local_ray import local_ray
from tests.support.tiny_moss import make_checkpoint


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def ray_logs() -> Iterator[Path]:
    """A running Ray; the directory of its logs."""
    with local_ray(num_cpus=4) as own_ray:
        yield own_ray.directory
