"""Ranks as Ray actors: the same tokens as local ranks, and a clear error when one is lost."""

import threading
import time
from pathlib import Path

import psutil
import pytest
import ray

from cluster.ranks.executor import RayExecutor
from cluster.ranks.placement import Placement
from moss_tp.config import ModelConfig
from moss_tp.engine_config import EngineConfig
from moss_tp.errors import CheckpointError, ConfigError, EngineDeadError
from moss_tp.llm import LLM
from moss_tp.sampling_params import SamplingParams
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("ray_logs")

PROMPTS = [[1, 2, 3, 4, 5], [6, 7], list(range(40))]
GREEDY = SamplingParams(temperature=0, repetition_penalty=1, max_tokens=24, ignore_eos=True)


def config_of(model: Path, tp_size: int = 2) -> EngineConfig:
    config = EngineConfig(model=str(model), tp_size=tp_size, dtype="float32", step_timeout_s=20)
    return config.resolve(ModelConfig.from_dir(model))


def is_every_cpu_free() -> bool:
    """According to Ray, which reports it with a delay."""
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return free.get("CPU") == total["CPU"]


def generate(model: Path, executor: str, tp_size: int) -> list[list[int]]:
    with LLM(str(model), tp_size=tp_size, dtype="float32", executor=executor) as llm:
        return [output.token_ids for output in llm.generate(PROMPTS, GREEDY)]


@pytest.mark.parametrize("tp_size", [1, 2])
def test_the_same_tokens_as_one_local_rank(tiny_model: Path, tp_size: int) -> None:
    assert generate(tiny_model, "ray", tp_size) == generate(tiny_model, "local", 1)


def test_close_ends_the_ranks_and_removes_the_placement_group(tiny_model: Path) -> None:
    assert wait_until(is_every_cpu_free, 30)  # the previous test's resources
    executor = RayExecutor(config_of(tiny_model))
    assert wait_until(lambda: not is_every_cpu_free(), 10)
    ranks = [psutil.Process(pid) for pid in executor.rank_pids]
    executor.close()
    executor.close()
    assert psutil.wait_procs(ranks, timeout=10)[1] == []
    assert wait_until(is_every_cpu_free, 30)


def test_a_killed_rank_is_reported_at_once_to_all_watchers(tiny_model: Path) -> None:
    executor = RayExecutor(config_of(tiny_model))
    reasons: list[str] = []
    reported = threading.Semaphore(0)

    def on_death(reason: str) -> None:
        reasons.append(reason)
        reported.release()

    try:
        executor.watch(on_death)
        executor.watch(on_death)
        (rank,) = executor.rank_pids
        psutil.Process(rank).kill()
        assert reported.acquire(timeout=10)  # long before the collectives' timeout of 20 s
        assert reported.acquire(timeout=1)
        assert f"process {rank}" in reasons[0]
        executor.watch(on_death)
        assert reasons == [reasons[0]] * 3
    finally:
        executor.close()


def test_a_stopped_rank_fails_the_generation_and_is_killed(tiny_model: Path) -> None:
    """Not even Ray can end a stopped process quickly, and it holds the group's resources."""
    with LLM(str(tiny_model), tp_size=2, dtype="float32", executor="ray", step_timeout_s=60) as llm:
        assert isinstance(llm.engine.executor, RayExecutor)
        rank = psutil.Process(llm.engine.executor.rank_pids[0])
        llm.generate(PROMPTS, GREEDY)
        rank.suspend()
        start = time.monotonic()
        with pytest.raises(EngineDeadError):
            llm.generate(PROMPTS, GREEDY)
        assert time.monotonic() - start < 30
        assert psutil.wait_procs([rank], timeout=10)[1] == []


def test_a_lost_rank_fails_the_generation(tiny_model: Path) -> None:
    with LLM(str(tiny_model), tp_size=2, dtype="float32", executor="ray") as llm:
        assert isinstance(llm.engine.executor, RayExecutor)
        psutil.Process(llm.engine.executor.rank_pids[0]).kill()
        with pytest.raises(EngineDeadError):
            llm.generate(PROMPTS, GREEDY)


def test_a_load_error_of_a_rank_keeps_its_type_and_message(
    tiny_model: Path, tmp_path: Path
) -> None:
    for file in tiny_model.iterdir():
        if file.name != "model-00002-of-00002.safetensors":
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(CheckpointError, match="model-00002-of-00002"):
        RayExecutor(config_of(tmp_path))


def test_too_few_cpus_for_the_ranks_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.ranks.placement.PLACE_TIMEOUT_S", 0.5)
    with pytest.raises(ConfigError, match="no room for 64 ranks"):
        Placement.current_or_new(64, "cpu")
