"""Streamed weights in whole steps, recorded and not: the tokens of resident ones."""

from collections.abc import Callable
from functools import partial

import pytest

from moss_tp import LLM
from moss_tp.accelerator.base import Accelerator
from moss_tp.accelerator.eager import EagerAccelerator
from moss_tp.engine.graphs.graph_runner import GraphRunner
from moss_tp.layers.offload import WeightStream
from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.engine.graphs.runner_steps import Row, launch, open_runner, read
from tests.support.devices.cuda_on_cpu import CudaOnCpu
from tests.support.devices.lazy_accelerator import LazyAccelerator
from tests.support.tiny_moss import make_checkpoint

LAYERS, HIDDEN = 6, 64
PROMPT = [3, 1, 4, 1, 5] * 4  # a long tile: a step that is not recorded
BLOCK_GIB = 4 * 12 * HIDDEN**2 / 2**30
RANDOM = SamplingParams(temperature=1, top_k=0, top_p=1, repetition_penalty=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_checkpoint(tmp_path_factory.mktemp("offload") / "model", layers=LAYERS))


def replies(runner: GraphRunner) -> list[list[int]]:
    """Two prompts; then six tokens of both in steps of which two are in flight."""
    steps = [
        launch(runner, *(Row(n, PROMPT[: 20 - n], params=RANDOM) for n in (0, 1))),
    ]
    found = []
    for position in range(1, 7):
        rows = [
            Row(n, [-(1 + n)], 19 - n + position, position=position, params=RANDOM) for n in (0, 1)
        ]
        steps.append(launch(runner, *rows))
        found.append(read(steps.pop(0)))
    return [*found, read(steps.pop(0))]


@pytest.fixture(scope="module")
def resident(model: str) -> list[list[int]]:
    return replies(open_runner(model, EagerAccelerator()))


def lazy_early() -> LazyAccelerator:
    return LazyAccelerator(is_transfer_early=True)


@pytest.mark.parametrize("make", [EagerAccelerator, LazyAccelerator, lazy_early])
@pytest.mark.parametrize("num_blocks", [1, 3, LAYERS])
def test_the_same_tokens_from_streamed_weights(
    make: Callable[[], Accelerator], num_blocks: int, model: str, resident: list[list[int]]
) -> None:
    runner = open_runner(model, make(), cpu_offload_gb=(num_blocks - 0.5) * BLOCK_GIB)
    assert runner.model.transformer._stream is not None
    assert len(runner.model.transformer._stream._sources) == num_blocks
    assert replies(runner) == resident


def test_weights_that_nobody_waits_for_are_noticed(
    model: str, resident: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that is not recorded computes with what is in the buffers."""
    runner = open_runner(model, LazyAccelerator(), cpu_offload_gb=3 * BLOCK_GIB)
    monkeypatch.setattr(WeightStream, "before", lambda self, layer: None)
    assert read(launch(runner, Row(0, PROMPT, params=RANDOM))) != resident[0][:1]


def test_a_recording_that_nobody_waits_in_is_noticed(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = open_runner(model, LazyAccelerator(), cpu_offload_gb=3 * BLOCK_GIB)
    monkeypatch.setattr(WeightStream, "before", lambda self, layer: None)
    step = launch(runner, Row(0, [7], params=RANDOM))
    with pytest.raises(RuntimeError, match="not joined"):
        read(step)


def test_two_ranks_stream_their_shards(model: str) -> None:
    prompts, params = [PROMPT, [9, 2, 6]], SamplingParams(temperature=0, max_tokens=8)
    found = []
    for tp_size, gib in ((1, 0), (2, 2 * BLOCK_GIB)):
        with LLM(
            model,
            tp_size,
            "cuda",
            "float32",
            partial(CudaOnCpu, accelerator=LazyAccelerator()),  # type: ignore[arg-type]
            max_model_len=64,
            kv_cache_bytes=2**22,
            num_threads=1,
            cpu_offload_gb=gib,
        ) as llm:
            outputs = llm.generate(prompts, params)
            found.append([output.outputs[0].token_ids for output in outputs])
    assert found[0] == found[1]
