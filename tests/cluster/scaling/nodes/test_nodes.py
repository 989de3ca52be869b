"""Nodes follow replicas: Ray's autoscaler on fake nodes, in namespaces of their own."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.cluster.scaling.nodes.drive import MOST, NUM_CLIENTS, STREAM_S

ROOT = Path(__file__).parents[4]
TIMEOUT_S = 200
UNSHARE = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--ipc", "--kill-child"]


def command(*arguments: str) -> list[str]:
    """In namespaces of its own; whoever is not root becomes root of a further one."""
    own = [] if os.geteuid() == 0 else ["--map-root-user"]
    return [*UNSHARE, *own, *arguments]


@pytest.fixture
def namespaces(request: pytest.FixtureRequest) -> None:
    """Skips where they are not permitted; under CI=true it fails."""
    if subprocess.run(command("true"), capture_output=True).returncode == 0:
        return
    if os.environ.get("CI") == "true":
        pytest.fail("no namespace may be made")
    request.node.user_properties.append(("missing", "permission to make namespaces"))
    pytest.skip("no namespace may be made")


@pytest.mark.needs("unshare")
@pytest.mark.usefixtures("namespaces")
def test_nodes_come_and_go_with_replicas() -> None:
    with TemporaryDirectory(dir="/tmp", prefix="n", ignore_cleanup_errors=True) as directory:
        run = subprocess.run(
            command(sys.executable, "-m", "tests.cluster.scaling.nodes.drive", directory),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT_S,
        )
    (told,) = (line for line in run.stdout.splitlines() if line.startswith('{"lengths"'))
    found = json.loads(told)
    assert set(found["lengths"]) == {int(STREAM_S * 10)}
    assert len(found["lengths"]) >= NUM_CLIENTS
    seen = [(running, nodes) for _, running, nodes in found["seen"]]
    assert seen[0][0] == 1 and seen[-1] == (1, 1) and (MOST, MOST) in seen
    assert all(running <= nodes for running, nodes in seen), "each on a node of its own"
    for numbers in zip(*seen, strict=True):
        top = numbers.index(MOST)
        rising, falling = numbers[: top + 1], numbers[top:]
        assert all(a <= b for a, b in pairwise(rising)), f"flapping: {seen}"
        assert all(a >= b for a, b in pairwise(falling)), f"flapping: {seen}"
