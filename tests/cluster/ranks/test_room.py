"""Whether a cluster can ever hold a group: by its nodes, and by those its autoscaler may add."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.ranks.room import Resources, _types_of_monitor, holds, message, node_types

FOUR = {"CPU": 4.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("nodes", "fits"),
    [
        ([], False),
        ([{"CPU": 64, "GPU": 2}, {"CPU": 64, "GPU": 2}], False),  # four together, on no one node
        ([{"CPU": 2, "GPU": 8}], False),
        ([{"CPU": 64}, {"CPU": 4, "GPU": 4}], True),
    ],
)
def test_one_node_has_to_have_it_all(nodes: list[Resources], fits: bool) -> None:
    assert holds(nodes, FOUR) is fits


def test_an_autoscaler_adds_what_its_configuration_says() -> None:
    types = {
        "head": {"resources": {"CPU": 0}, "max_workers": 0},
        "big": {"resources": {"CPU": 8, "GPU": 8}, "max_workers": 0},
        "small": {"resources": {"CPU": 8, "GPU": 2}, "max_workers": 3},
        "default": {"resources": {"CPU": 1}},
    }
    found = node_types({"available_node_types": types, "max_workers": 4})
    assert found == [{"CPU": 8, "GPU": 2}, {"CPU": 1}]
    assert node_types({"available_node_types": {"default": types["default"]}}) == []
    assert node_types({}) == []


def test_the_message_says_what_is_missing() -> None:
    text = message(4, FOUR, [{"CPU": 64, "GPU": 2}], [])
    assert "4 ranks" in text and "4 CPUs and 4 GPUs" in text and "64 CPUs and 2 GPUs" in text
    assert "autoscaler" not in text
    grown = message(4, FOUR, [{"CPU": 64}], [{"CPU": 8, "GPU": 2}])
    assert "autoscaler" in grown and "64 CPUs and 2 GPUs" in grown


@pytest.mark.parametrize("has_config", [True, False])
def test_a_monitor_of_this_ray_tells_its_configuration(tmp_path: Path, has_config: bool) -> None:
    """A process that has a monitor's command line; that of another Ray is none of ours."""
    config = tmp_path / "config.yaml"
    config.write_text("max_workers: 1\navailable_node_types: {a: {resources: {GPU: 4}}}\n")
    flags = ["/ray/monitor.py", "--gcs-address=host:1"]
    flags += [f"--autoscaling-config={config}"] if has_config else []
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)", *flags]
    with subprocess.Popen(sleeping) as process:
        try:
            assert _types_of_monitor("host:1") == ([{"GPU": 4}] if has_config else [])
            assert _types_of_monitor("host:2") is None
        finally:
            process.kill()


# Ray accepts made-up GPUs.
SCRIPT = """
import subprocess, sys, tempfile, time
from pathlib import Path
import ray
from ray import serve
from ray.serve.schema import ServeDeploySchema
from cluster.ranks import room
from moss_tp.errors import ConfigError
from serve_app.demo.bundled import BUNDLED_MODEL

directory = tempfile.mkdtemp(prefix="moss-", dir="/tmp")
ray.init(
    address="local", num_cpus=8, num_gpus=2, include_dashboard=False, logging_level="ERROR",
    _temp_dir=directory, object_store_memory=80 << 20, log_to_driver=False,
)
room.check_room(2, "cuda")
room.check_room(8, "cpu")
began = time.monotonic()
try:
    room.check_room(4, "cuda")
except ConfigError as error:
    print("refused:", error)
serve.start(proxy_location="Disabled")
args = {"model": str(BUNDLED_MODEL), "store": "redis://127.0.0.1:1", "tp": 4, "device": "cuda"}
app = {"name": "moss", "import_path": "serve_app.app:build_app", "args": args}
from ray.serve.context import _get_global_client
_get_global_client().deploy_apps(ServeDeploySchema.model_validate({"applications": [app]}))
while (state := serve.status().applications["moss"]).status != "DEPLOY_FAILED":
    assert time.monotonic() - began < 120, state
    time.sleep(0.2)
print("deployment:", " ".join(state.message.split()))
room._types_of_monitor = lambda address: [{"CPU": 8, "GPU": 4}]
room.check_room(4, "cuda")
room._types_of_monitor = lambda address: None
room.check_room(4, "cuda")
serve.shutdown()
ray.shutdown()
"""


@pytest.mark.timeout(200)
def test_a_group_that_no_node_can_hold_fails_the_deployment() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=180,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"},
    )
    assert shown.returncode == 0, shown.stderr
    told = [line for line in shown.stdout.splitlines() if line.startswith(("refused", "deploy"))]
    refused, deployment = told
    assert "4 CPUs and 4 GPUs" in refused and "8 CPUs and 2 GPUs" in refused
    assert "no node can hold a group of 4 ranks" in deployment
