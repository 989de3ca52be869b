"""The application that `build_app` wires: its deployments and the options they share."""

import os
from typing import Any

import pytest
from ray.serve import Application, Deployment

from serve_app.api_secret import digest_of
from serve_app.app import build_app
from serve_app.demo.bundled import BUNDLED_MODEL
from serve_app.deployments.options import deployment_options
from serve_app.deployments.replica_end import CUT_S
from serve_app.settings import ServeSettings

SETTINGS = ServeSettings(
    model=str(BUNDLED_MODEL),
    store="redis://localhost:6379/0",
    tp=2,
    replicas=3,
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
