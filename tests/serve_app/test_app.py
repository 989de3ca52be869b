"""The application that `build_app` wires: its deployments and the options they share."""

import os
from dataclasses import fields
from typing import Any

import pytest
from ray.serve import Application, Deployment

from cluster.scaling.policy import Load
from cluster.scaling.replicas import Replicas
from cluster.scaling.serve_policy import POLICY
from moss_tp.engine.load import EngineLoad
from serve_app.api_secret import digest_of
from serve_app.app import build_app
from serve_app.demo.bundled import BUNDLED_MODEL
from serve_app.deployments.options import LONGEST_STREAM_S, deployment_options
from serve_app.deployments.replica_end import CUT_S
from serve_app.settings import ServeSettings

SETTINGS = ServeSettings(
    model=str(BUNDLED_MODEL),
    store="redis://localhost:6379/0",
    tp=2,
    replicas=Replicas.of(3),
    drain_s=7,
    start_attempts=4,
)


def deployments(application: Application) -> dict[str, Deployment]:
    """All deployments of the application, by name."""
    # Private, but the only way to look into an application without running it.
    deployment: Any = application._bound_deployment
    found = {deployment.name: deployment}
    for argument in deployment.init_args:
        for bound in argument.values() if isinstance(argument, dict) else [argument]:
            if isinstance(bound, Application):
                found |= deployments(bound)
    return found


@pytest.fixture(scope="module")
def built() -> dict[str, Deployment]:
    return deployments(build_app(SETTINGS))


def test_ingress_model_and_plugins_are_deployed(built: dict[str, Deployment]) -> None:
    plugins = {f"plugin_{name}" for name in SETTINGS.plugin_names}
    assert len(plugins) == 2
    assert set(built) == {"Ingress", "MossServer", *plugins}


def test_all_deployments_share_one_set_of_options(built: dict[str, Deployment]) -> None:
    expected = deployment_options(SETTINGS)
    assert expected["graceful_shutdown_timeout_s"] == 7
    assert expected["max_constructor_retry_count"] == 4
    cut_s = {"Ingress": CUT_S}  # Serve kills an ingress only after its own drain
    for name, deployment in built.items():
        expected["graceful_shutdown_timeout_s"] = 7 + cut_s.get(name, 0)
        config: Any = deployment._deployment_config
        assert {option: getattr(config, option) for option in expected} == expected, name


def test_a_model_replica_is_a_placement_group_of_its_ranks(built: dict[str, Deployment]) -> None:
    model: Any = built["MossServer"]
    assert model.num_replicas == 3
    assert len(model._replica_config.placement_group_bundles) == 2


def test_a_range_of_replicas_is_scaled_by_our_policy() -> None:
    changes = {"replicas": Replicas(0, 3), "scale_down_after_s": 9}
    model: Any = deployments(build_app(SETTINGS.model_copy(update=changes)))["MossServer"]
    config = model._deployment_config.autoscaling_config
    assert (config.min_replicas, config.initial_replicas, config.max_replicas) == (0, 1, 3)
    assert config.policy.policy_function == POLICY
    assert config.policy.policy_kwargs["down_after_s"] == 9
    # A stream outlasts what a server that stops would wait for.
    assert model._deployment_config.graceful_shutdown_timeout_s == LONGEST_STREAM_S > 7


def test_a_replica_says_all_figures_that_the_policy_reads() -> None:
    assert [f.name for f in fields(EngineLoad)] == [f.name for f in fields(Load)]


def test_ingresses_are_two_and_need_little(built: dict[str, Deployment]) -> None:
    ingress: Any = built["Ingress"]
    assert ingress.num_replicas == 2
    assert 2 * ingress.ray_actor_options["num_cpus"] < 1, "the CPU that the ranks leave"


def test_plugins_claim_no_cpu(built: dict[str, Deployment]) -> None:
    calculator: Any = built["plugin_calculator"]
    assert calculator.ray_actor_options["num_cpus"] == 0


def test_a_key_of_the_environment_is_known_by_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOSS_API_KEY", "correct-horse")
    built = build_app(SETTINGS)
    assert "MOSS_API_KEY" not in os.environ
    bound: Any = built._bound_deployment
    settings = bound.init_args[0]
    assert settings.requires_key and settings.api_key_sha256 == digest_of("correct-horse")
    assert "correct-horse" not in repr(vars(settings))
