"""Building an engine: a failure after the executor was made closes the executor."""

from collections.abc import Callable

import pytest

from moss_tp.engine.build import build_engine
from moss_tp.engine_config import EngineConfig
from moss_tp.errors import ConfigError, EngineDeadError
from tests.moss_tp.engine.scheduling.paged_fake import PagedFake

BLOCK_SIZE = 16
NUM_NEEDED = 4  # blocks of one sequence of MAX_MODEL_LEN tokens
MAX_MODEL_LEN = 64


class LostFake(PagedFake):
    """An executor whose rank is lost before it can be watched."""

    def watch(self, on_death: Callable[[str], None]) -> None:
        raise EngineDeadError("rank 1 ended")


def config_of(model: str, tp_size: int = 1) -> EngineConfig:
    return EngineConfig(model, tp_size, max_model_len=MAX_MODEL_LEN, block_size=BLOCK_SIZE)


def test_too_few_blocks_close_the_executor(tiny_model: str) -> None:
    executor = PagedFake(NUM_NEEDED - 1, BLOCK_SIZE)
    with pytest.raises(ConfigError, match="do not hold one sequence"):
        build_engine(config_of(tiny_model), lambda resolved: executor)
    assert executor.is_closed


def test_a_rank_lost_before_it_is_watched_closes_the_executor(tiny_model: str) -> None:
    executor = LostFake(NUM_NEEDED, BLOCK_SIZE)
    with pytest.raises(EngineDeadError, match="rank 1 ended"):
        build_engine(config_of(tiny_model), lambda resolved: executor, lambda reason: None)
    assert executor.is_closed


def test_a_built_engine_owns_the_open_executor(tiny_model: str) -> None:
    executor, deaths = PagedFake(NUM_NEEDED, BLOCK_SIZE), list[str]()
    engine = build_engine(config_of(tiny_model), lambda resolved: executor, deaths.append)
    assert engine.executor is executor and not executor.is_closed
    assert executor.on_death == deaths.append
    engine.close()
    assert executor.is_closed


def test_no_executor_is_made_for_a_tp_that_does_not_divide_the_model(tiny_model: str) -> None:
    made: list[EngineConfig] = []

    def make(resolved: EngineConfig) -> PagedFake:
        made.append(resolved)
        return PagedFake(NUM_NEEDED, BLOCK_SIZE)

    with pytest.raises(ConfigError, match="3"):
        build_engine(config_of(tiny_model, tp_size=3), make)
    assert made == []
