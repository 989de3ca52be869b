"""Device "cuda" on CPU tensors replies what the CPU's engine does: by every way, all sampling.

The CPU's kernels and the torch references of CUDA's add in other orders, so tokens are compared in
fp32, where no two logits of these replies are that close, and log probabilities only nearly. On the
lazy accelerator, nothing runs before the host has looked at an event.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from typing import Any

import pytest

from moss_tp import LLM
from moss_tp.accelerator.base import Accelerator
from moss_tp.accelerator.eager import EagerAccelerator
from moss_tp.engine.graphs import graph_runner
from moss_tp.engine.graphs.graph_runner import GraphRunner
from moss_tp.engine.graphs.memory import largest_steps
from moss_tp.engine.running.executor import Executor
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.engine.scheduling.pace import Pace
from moss_tp.engine_config import EngineConfig
from moss_tp.sampling.row import SampledToken
from moss_tp.sampling_params import SamplingParams
from tests.support.devices.cuda_on_cpu import CudaOnCpu
from tests.support.devices.lazy_accelerator import LazyAccelerator
from tests.support.same_bytes import MAX_MODEL_LEN, WAYS, Bench, Replies, Reply
from tests.support.tiny_moss import make_checkpoint

MakeExecutor = Callable[[EngineConfig], Executor]


def open_llm(model: str, executor: MakeExecutor | None, **settings: Any) -> LLM:
    """On the CPU, or for "cuda" by `executor`."""
    if executor is not None:
        settings |= {"device": "cuda", "executor": executor}
    fixed: dict[str, Any] = {"max_model_len": MAX_MODEL_LEN, "kv_cache_bytes": 2**24}
    return LLM(model, dtype="float32", num_threads=1, **(fixed | settings))


def runner_of(llm: LLM) -> GraphRunner:
    runner = llm.engine.executor._driver._runner  # type: ignore[attr-defined]
    assert isinstance(runner, GraphRunner)
    return runner


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("graphs") / "model"
    return str(make_checkpoint(directory, head_dim=16, layers=2, rotary_dim=8))


@pytest.fixture(scope="module")
def alone(model: str) -> list[Reply]:
    """What the CPU's engine replies."""
    with open_llm(model, None) as llm:
        return Bench(llm).alone


@contextmanager
def bench_on(gpu: Accelerator, model: str, alone: list[Reply]) -> Iterator[Bench]:
    with open_llm(model, partial(CudaOnCpu, accelerator=gpu)) as llm:
        yield Bench(llm, alone)
        assert runner_of(llm).num_replays > llm.engine.num_steps / 2


@pytest.fixture(scope="module")
def lazy(model: str, alone: list[Reply]) -> Iterator[Bench]:
    with bench_on(LazyAccelerator(), model, alone) as bench:
        yield bench


@pytest.fixture(scope="module")
def eager(model: str, alone: list[Reply]) -> Iterator[Bench]:
    with bench_on(EagerAccelerator(), model, alone) as bench:
        yield bench


def other_tokens(alone: list[Reply], replies: Replies) -> list[str]:
    """A line for each reply that is not the CPU's."""
    found = []
    for number, num_told, reply in replies:
        expected = alone[number].tokens[num_told:]
        is_same = len(reply.tokens) == len(expected) and all(map(is_near, reply.tokens, expected))
        if not is_same or reply.finish_reason != alone[number].finish_reason:
            found.append(f"request {number} after {num_told} tokens")
    return found


def is_near(token: SampledToken, other: SampledToken) -> bool:
    """The same token, and as probable; nearly equal ones among the best may have changed places."""
    assert token.logprob is not None
    assert other.logprob is not None
    values = [value for _, value in token.top_logprobs]
    others = [value for _, value in other.top_logprobs]
    return (
        token.token_id == other.token_id
        and math.isclose(token.logprob, other.logprob, abs_tol=1e-3)
        and all(math.isclose(a, b, abs_tol=1e-3) for a, b in zip(values, others, strict=True))
    )


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some steps have drafts, some are one behind; what either costs here says nothing."""
    choices = cycle([True, True, True, False, False, False])
    monkeypatch.setattr(Pace, "should_draft", lambda *_: next(choices))


@pytest.mark.parametrize("way", WAYS)
def test_the_cpus_tokens_by_every_way(
    lazy: Bench, alone: list[Reply], way: str, turns: None
) -> None:
    found = other_tokens(alone, WAYS[way](lazy))
    assert not found, f"{len(found)} replies differ: " + "; ".join(found[:5])


@pytest.mark.parametrize("way", ["batched", "preempted"])
def test_the_cpus_tokens_at_once(eager: Bench, alone: list[Reply], way: str, turns: None) -> None:
    assert not other_tokens(alone, WAYS[way](eager))


def test_two_ranks_reply_the_same(model: str, alone: list[Reply], turns: None) -> None:
    with open_llm(model, CudaOnCpu, tp_size=2, max_num_seqs=24) as llm:
        bench = Bench(llm, alone)
        for way in ("batched", "preempted"):
            assert not other_tokens(alone, WAYS[way](bench)), way


@pytest.mark.parametrize("seed", range(3))
def test_int8_keys_and_values(model: str, seed: int) -> None:
    """Greedy: a difference in the last place may round to another int8."""
    prompts = [[(7 * i * i + 11 * j + seed) % 256 for i in range(5 + 20 * j)] for j in range(8)]
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    replies = []
    for executor in (None, partial(CudaOnCpu, accelerator=LazyAccelerator())):
        with open_llm(model, executor, kv_cache_dtype="int8") as llm:
            outputs = llm.generate(prompts, params)
            replies.append([output.outputs[0].token_ids for output in outputs])
    assert replies[0] == replies[1]


@pytest.mark.parametrize("tp_size", [1, 2])
def test_the_memory_of_a_default_cache_is_found_by_running_steps(
    model: str, tp_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[EngineConfig] = []

    def noted(config: EngineConfig) -> list[Batch]:
        prepared.append(config)
        return largest_steps(config)

    monkeypatch.setattr(graph_runner, "largest_steps", noted)
    settings = {"max_num_seqs": 4, "max_num_batched_tokens": 64, "kv_cache_bytes": None}
    replies = []
    for executor in (None, CudaOnCpu):
        with open_llm(model, executor, tp_size=tp_size, **settings) as llm:
            (output,) = llm.generate([[1, 2, 3]], SamplingParams(seed=1, max_tokens=9))
            replies.append(output.outputs[0].token_ids)
    assert replies[0] == replies[1]
    assert len(prepared) == 1
