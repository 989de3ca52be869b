"""Real ranks as processes: lost, hung, idle and closed ones, and a killed parent."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from moss_tp.engine.async_engine import AsyncEngine
from moss_tp.engine.build import build_engine
from moss_tp.engine.request import EngineRequest
from moss_tp.engine.running.local_executor import LocalExecutor
from moss_tp.engine_config import EngineConfig
from moss_tp.errors import CheckpointError, ConfigError, EngineDeadError
from moss_tp.sampling_params import SamplingParams
from tests.support.tiny_moss import make_checkpoint
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[4]
LONG = SamplingParams(temperature=0, max_tokens=200, ignore_eos=True)
SHORT = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
STEP_TIMEOUT_S = 15.0  # of the collectives at the start too, on a busy machine
PATIENT_S = 60.0


class Ranks:
    """An AsyncEngine on two ranks, and the reasons passed to `on_death`."""

    def __init__(self, model: str, step_timeout_s: float) -> None:
        config = EngineConfig(
            model,
            tp_size=2,
            dtype="float32",
            num_speculative_tokens=0,  # else a reply may be over in a few steps
            step_timeout_s=step_timeout_s,
        )
        llm_engine = build_engine(config)
        assert isinstance(llm_engine.executor, LocalExecutor)
        self.pids = llm_engine.executor.rank_pids
        self.reasons: list[str] = []
        self.engine = AsyncEngine(llm_engine, self.reasons.append)

    async def tokens(self, name: str, params: SamplingParams) -> int:
        return len([d async for d in self.engine.generate(EngineRequest(name, [1, 2, 3], params))])


@pytest.fixture
def patient(tiny_model: str) -> Iterator[Ranks]:
    """A step timeout so long that the sentinel reports a dead rank first."""
    ranks = Ranks(tiny_model, step_timeout_s=PATIENT_S)
    yield ranks
    ranks.engine.close()
    assert_gone(ranks.pids)


@pytest.fixture
def hasty(tiny_model: str) -> Iterator[Ranks]:
    ranks = Ranks(tiny_model, step_timeout_s=STEP_TIMEOUT_S)
    yield ranks
    ranks.engine.close()
    assert_gone(ranks.pids)


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def assert_gone(pids: list[int]) -> None:
    assert pids
    assert wait_until(lambda: not any(map(is_running, pids)), 10), pids


async def test_a_killed_rank_fails_every_request(patient: Ranks) -> None:
    tasks = [asyncio.create_task(patient.tokens(str(i), LONG)) for i in range(4)]
    while patient.engine.stats().steps < 3:
        await asyncio.sleep(0.01)
    os.kill(patient.pids[0], signal.SIGKILL)
    async with asyncio.timeout(15):
        replies = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(reply) for reply in replies] == [EngineDeadError] * 4
    assert not patient.engine.is_alive
    # The engine's thread calls it last, perhaps after the requests have failed.
    assert await asyncio.to_thread(wait_until, lambda: len(patient.reasons) == 1, 10)
    with pytest.raises(EngineDeadError):
        await patient.tokens("late", SHORT)


async def test_an_idle_engine_notices_a_killed_rank(patient: Ranks) -> None:
    assert await patient.tokens("a", SHORT) == 3
    os.kill(patient.pids[0], signal.SIGKILL)
    assert await asyncio.to_thread(wait_until, lambda: bool(patient.reasons), 10)
    assert "rank 1" in patient.reasons[0]
    assert not patient.engine.is_alive


async def test_ranks_survive_idling_longer_than_the_timeout(hasty: Ranks) -> None:
    assert await hasty.tokens("a", SHORT) == 3
    await asyncio.sleep(1.2 * STEP_TIMEOUT_S)
    assert hasty.engine.is_alive
    assert await hasty.tokens("b", SHORT) == 3
    assert hasty.reasons == []


async def test_a_stopped_rank_is_noticed_long_before_the_timeout(patient: Ranks) -> None:
    """Once the engine knows what steps take; rank 0 hangs in a collective meanwhile."""
    tasks = [asyncio.create_task(patient.tokens(str(i), LONG)) for i in range(2)]
    while patient.engine.stats().steps < 20:
        await asyncio.sleep(0.01)
    os.kill(patient.pids[0], signal.SIGSTOP)
    async with asyncio.timeout(PATIENT_S / 2):
        replies = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(reply) for reply in replies] == [EngineDeadError] * 2
    assert_gone(patient.pids)


async def test_an_idle_engine_notices_a_stopped_rank(patient: Ranks) -> None:
    assert await patient.tokens("a", SHORT) == 3
    os.kill(patient.pids[0], signal.SIGSTOP)
    assert await asyncio.to_thread(wait_until, lambda: bool(patient.reasons), PATIENT_S / 2)
    assert "has not ended" in patient.reasons[0]
    assert_gone(patient.pids)


async def test_before_steps_are_known_a_stopped_rank_is_noticed_within_the_timeout(
    hasty: Ranks,
) -> None:
    os.kill(hasty.pids[0], signal.SIGSTOP)
    async with asyncio.timeout(STEP_TIMEOUT_S + 10):
        with pytest.raises(EngineDeadError):
            await hasty.tokens("a", LONG)


def test_a_step_costs_one_control_message(tiny_model: str) -> None:
    config = EngineConfig(tiny_model, 2, dtype="float32", step_timeout_s=600)
    engine = build_engine(config)
    assert isinstance(engine.executor, LocalExecutor)
    engine.executor._driver._stop_threads.set()  # no heartbeat in between
    counts = engine.executor._driver._group.counts
    engine.add_request(EngineRequest("a", [1, 2, 3], LONG))
    engine.step()
    counts.clear()
    engine.step()
    # Embedding and two blocks; the logits.
    assert counts == {"broadcast": 1, "all_reduce": 3, "gather": 1}
    engine.close()


def test_close_leaves_no_thread(tiny_model: str) -> None:
    before = set(threading.enumerate())
    executor = LocalExecutor(EngineConfig(tiny_model, 2, dtype="float32", max_model_len=64))
    pids = executor.rank_pids
    executor.close()
    executor.close()
    assert [rank.wait() for rank in executor._ranks] == [0], "the rank did not stop by itself"
    assert_gone(pids)
    assert set(threading.enumerate()) <= before


# No main guard and no file, as typed into a shell.
SCRIPT = """
import sys, time
from moss_tp import LLM, SamplingParams
llm = LLM(sys.argv[1], tp_size=2, dtype="float32")
print(*llm.engine.executor.rank_pids, flush=True)
print(len(llm.generate(["hi"], SamplingParams(max_tokens=2, ignore_eos=True))[0].token_ids))
if sys.argv[2] == "wait":
    sys.stdout.flush()
    time.sleep(600)
"""


def start_script(model: str, what: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-", model, what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_ranks_die_with_a_killed_parent(tiny_model: str) -> None:
    with start_script(tiny_model, "wait") as parent:
        assert parent.stdin is not None and parent.stdout is not None
        parent.stdin.write(SCRIPT)
        parent.stdin.close()
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert parent.stdout.readline() == "2\n"
        assert all(map(is_running, pids))
        parent.kill()
    assert_gone(pids)


def test_a_script_that_does_not_close_the_engine_ends_cleanly(tiny_model: str) -> None:
    with start_script(tiny_model, "leave") as parent:
        output, errors = parent.communicate(SCRIPT, timeout=120)
    assert parent.returncode == 0, errors
    assert errors == ""
    pids, num_tokens = output.splitlines()
    assert num_tokens == "2"
    assert_gone([int(pid) for pid in pids.split()])


def children() -> set[int]:
    pid = os.getpid()
    paths = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for path in paths for child in path.read_text().split()}


def test_a_broken_checkpoint_is_one_clear_error(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "broken")
    next(model.glob("model-00002*")).unlink()
    before = children()
    with pytest.raises(CheckpointError, match="model-00002"):
        LocalExecutor(EngineConfig(str(model), 2, dtype="float32", max_model_len=64))
    assert children() <= before


def test_a_tp_that_does_not_divide_the_model_starts_no_rank(tiny_model: str) -> None:
    before = children()
    with pytest.raises(ConfigError, match="3"):
        build_engine(EngineConfig(tiny_model, 3))
    assert children() <= before


def test_a_cache_for_less_than_one_sequence_is_rejected(tiny_model: str) -> None:
    before = children()
    config = EngineConfig(tiny_model, 2, dtype="float32", max_model_len=64, kv_cache_bytes=20_000)
    with pytest.raises(ConfigError, match="raise kv_cache_bytes or lower max_model_len"):
        LocalExecutor(config)
    assert children() <= before
