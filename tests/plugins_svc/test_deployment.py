"""The plugin deployments on a real, small Ray of their own."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest
import ray
from ray import serve

from plugins_svc.deployment import plugin_deployment
from plugins_svc.results import PluginOutput


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    directory = tempfile.mkdtemp(prefix="rp", dir="/tmp")  # Ray's sockets need a short path
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=directory,
        _node_ip_address="127.0.0.1",
    )
    yield
    serve.shutdown()  # type: ignore[no-untyped-call]
    ray.shutdown()
    shutil.rmtree(directory, ignore_errors=True)


def test_the_deployment_is_named_after_its_plugin() -> None:
    application = plugin_deployment("calculator")
    assert application._bound_deployment.name == "plugin_calculator"


def test_each_plugin_answers_in_a_deployment_of_its_own(local_ray: None) -> None:
    names = ("calculator", "equation_solver")
    handles = {
        name: serve.run(plugin_deployment(name), name=name, route_prefix=None) for name in names
    }
    answers = [
        handles["calculator"].run.remote("5^3").result(timeout_s=60),
        handles["equation_solver"].run.remote("2x+3=7").result(timeout_s=60),
        handles["calculator"].run.remote("9**9**9**9").result(timeout_s=60),
    ]
    assert answers == [
        PluginOutput(True, ("125",)),
        PluginOutput(True, ("x = 2",)),
        PluginOutput.no_result(),
    ]
