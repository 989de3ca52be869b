"""A rank's actor and the group's placement group, without Ray: order of calls, and cleanup."""

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import ray
from ray.util.placement_group import PlacementGroup

from cluster.ranks import group, placement
from cluster.ranks.group import WorkerGroup
from cluster.ranks.placement import Placement, rank_bundle, rank_options
from cluster.ranks.worker import TPWorker
from moss_tp.engine.running import worker as engine_worker
from moss_tp.errors import ConfigError

PLACE = cast(PlacementGroup, object())


class StartError(Exception):
    """Ray could not start an actor."""


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The placement groups that were removed."""
    found: list[object] = []
    monkeypatch.setattr(placement, "remove_placement_group", found.append)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    return found


def test_a_rank_is_built_before_its_loop_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    runner = SimpleNamespace(prepare=lambda: calls.append("prepare"))

    def build(spec: object) -> object:
        calls.append(spec)
        return runner

    def loop(runner: object, num_blocks: int) -> None:
        calls.append((runner, num_blocks))

    monkeypatch.setattr(engine_worker, "build_rank", build)
    monkeypatch.setattr(engine_worker, "worker_loop", loop)
    rank = TPWorker()
    assert rank.pid() == os.getpid()
    with pytest.raises(RuntimeError, match="run_loop before build"):
        rank.run_loop(9)
    with pytest.raises(RuntimeError, match="prepare before build"):
        rank.prepare()
    spec: Any = "spec"
    rank.build(spec)
    rank.prepare()
    rank.run_loop(9)
    assert calls == ["spec", "prepare", (runner, 9)]


@pytest.mark.parametrize(("device", "gpus"), [("cpu", 0), ("cuda", 1)])
def test_an_actor_takes_what_its_bundle_reserves(device: str, gpus: int) -> None:
    bundle, options = rank_bundle(device), rank_options(device)
    assert bundle.get("GPU", 0) == options.get("num_gpus", 0) == gpus
    assert bundle["CPU"] == options["num_cpus"] == 1


def test_a_replica_uses_its_placement_group_and_does_not_remove_it(
    removed: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Serve owns it. A replica sees only the GPU of its bundle, as number 0."""
    monkeypatch.setattr(placement, "get_current_placement_group", lambda: PLACE)
    current = Placement.current_or_new(4, "cuda")
    assert current.group is PLACE
    assert [current.own_device(device) for device in ("cuda", "cpu")] == ["cuda", "cpu"]
    current.release()
    assert removed == []


def test_an_owned_placement_group_is_removed(removed: list[object]) -> None:
    own = Placement(PLACE, is_owned=True)
    assert own.own_device("cpu") == "cpu"
    own.release()
    assert removed == [PLACE]


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*arguments: object) -> None:
        raise error

    return fail


def owned_placement(*arguments: object) -> Placement:
    return Placement(PLACE, is_owned=True)


def test_a_failed_start_of_a_rank_removes_the_placement_group(
    removed: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Placement, "current_or_new", owned_placement)
    monkeypatch.setattr(WorkerGroup, "_start", failing(StartError()))
    with pytest.raises(StartError):
        WorkerGroup(2, "cpu")
    assert removed == [PLACE]


def test_a_group_without_room_has_nothing_to_remove(
    removed: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Placement, "current_or_new", failing(ConfigError("no room")))
    with pytest.raises(ConfigError, match="no room"):
        WorkerGroup(2, "cpu")
    assert removed == []


def test_close_ends_ranks_last_first_and_once(
    removed: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[object] = []

    def start(self: WorkerGroup, rank: int, device: str) -> int:
        self._resources.callback(ended.append, rank)
        return rank

    monkeypatch.setattr(Placement, "current_or_new", owned_placement)
    monkeypatch.setattr(group.WorkerGroup, "_start", start)
    made = WorkerGroup(4, "cpu")
    assert made.workers == [1, 2, 3]
    made.close()
    made.close()
    assert (ended, removed) == ([3, 2, 1], [PLACE])
