"""The files for a real cluster pass the validation of Ray, of Serve, and our own."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from cluster.scaling.replicas import Replicas
from serve_app.deployments.serve_environment import SERVE_ENVIRONMENT
from serve_app.proxy.contract import CALLBACK
from serve_app.settings import ServeSettings

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "ray_config.yaml"
SERVE = ROOT / "cluster" / "deploy" / "serve.yaml"
SEVERAL = ROOT / "cluster" / "deploy" / "several.yaml"


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return loaded


@pytest.fixture
def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def test_ray_accepts_the_cluster_config() -> None:
    validate_config(prepare_config(load(CLUSTER)))


def test_ray_rejects_a_misspelled_field() -> None:
    config = load(CLUSTER)
    config["max_worker"] = config.pop("max_workers")
    with pytest.raises(Exception, match="max_worker"):
        validate_config(prepare_config(config))


def test_the_cluster_runs_the_pinned_versions(pinned: dict[str, str]) -> None:
    config = load(CLUSTER)
    assert config["docker"]["image"] == f"rayproject/ray:{pinned['ray']}-py311-gpu"
    assert any("--constraint" in command for command in config["setup_commands"])


def test_the_cluster_is_closed_and_authenticated() -> None:
    config = load(CLUSTER)
    rules = config["provider"]["security_group"]["IpPermissions"]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in rules] == [(22, 22)]
    assert "0.0.0.0/0" not in CLUSTER.read_text("utf-8")
    starts = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    for command in (c for c in starts if "ray start" in c):
        assert re.match(r"RAY_AUTH_MODE=token ", command)


def test_serves_actors_get_the_environment_that_they_get_on_one_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They run on the head: what frees the GPUs of a model that was stopped, and the contract."""
    (start,) = (c for c in load(CLUSTER)["head_start_ray_commands"] if "ray start" in c)
    variables = dict(word.split("=") for word in start.split() if word.startswith("RAY_SERVE_"))
    assert variables == SERVE_ENVIRONMENT
    monkeypatch.setattr("serve_app.proxy.contract.yield_to_the_model", lambda: None)
    module, _, name = SERVE_ENVIRONMENT[CALLBACK[0]].partition(":")
    assert getattr(import_module(module), name)()


def test_serve_accepts_the_deploy_config() -> None:
    ServeDeploySchema.model_validate(load(SERVE))


def test_the_import_path_builds_the_application() -> None:
    (application,) = load(SERVE)["applications"]
    module, _, name = application["import_path"].partition(":")
    build_app = getattr(import_module(module), name)
    settings = ServeSettings.model_validate(application["args"])
    assert build_app(settings)
    assert settings.engine_config("/m").tp_size == 4


def test_there_is_a_node_for_each_replica() -> None:
    (application,) = load(SERVE)["applications"]
    settings = ServeSettings.model_validate(application["args"])
    nodes = load(CLUSTER)["available_node_types"]["gpu4"]
    assert settings.replicas == Replicas(nodes["min_workers"], nodes["max_workers"])


def test_the_config_names_deployments_that_exist() -> None:
    (application,) = load(SERVE)["applications"]
    assert {deployment["name"] for deployment in application["deployments"]} <= {
        "Ingress",
        "MossServer",
    }


def test_models_side_by_side_share_neither_path_nor_database() -> None:
    ServeDeploySchema.model_validate(load(SEVERAL))
    applications = load(SEVERAL)["applications"]
    settings = [ServeSettings.model_validate(each["args"]) for each in applications]
    assert len({each["route_prefix"] for each in applications}) == len(applications) == 3
    assert len({each.store for each in settings}) == len(applications)
    assert [each.resolved_dialogue for each in settings] == ["plugin", "plain", "plain"]
    assert all(each.requires_key for each in settings)
