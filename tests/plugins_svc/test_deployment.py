"""The plugin deployments on a real, small Ray of their own."""

from collections.abc import Iterator

import pytest
from ray import serve

from cluster.launch.local_ray import local_ray
from plugins_svc.deployment import plugin_deployment
from plugins_svc.sdk.output import PluginOutput

ANSWER_TIMEOUT_S = 120


@pytest.fixture
def own_serve() -> Iterator[None]:
    with local_ray(num_cpus=1):
        serve.start(proxy_location="Disabled")  # no HTTP here, so no port
        yield
        serve.shutdown()  # type: ignore[no-untyped-call]


def test_the_deployment_is_named_after_its_plugin() -> None:
    application = plugin_deployment("calculator")
    assert application._bound_deployment.name == "plugin_calculator"


def test_each_plugin_answers_in_a_deployment_of_its_own(own_serve: None) -> None:
    calls = [
        ("calculator", "5^3", PluginOutput(True, ("125",))),
        ("equation_solver", "2x=6", PluginOutput(True, ("x = 3",))),
        ("calculator", "9**9**9**9", PluginOutput.no_result()),
    ]
    handles = {
        name: serve.run(plugin_deployment(name), name=name, route_prefix=None)
        for name in ("calculator", "equation_solver")
    }
    for name, argument, expected in calls:
        assert handles[name].run.remote(argument).result(timeout_s=ANSWER_TIMEOUT_S) == expected
