"""Two steps in flight, pending ids, and what the lazy accelerator shows where the runner errs."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from moss_tp.accelerator.base import Accelerator
from moss_tp.accelerator.eager import Done, EagerAccelerator
from moss_tp.engine.graphs import device_step, graph_runner
from moss_tp.engine.graphs.graph_runner import GraphRunner
from moss_tp.engine.graphs.step_slot import GraphStep
from moss_tp.errors import StepMemoryError
from moss_tp.kernels.cuda.runtime.launches import counted_launches
from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.engine.graphs.runner_steps import Row, launch, open_runner, read
from tests.support.devices.lazy_accelerator import LazyAccelerator
from tests.support.tiny_moss import make_checkpoint

PROMPTS = [[3, 1, 4, 1, 5], [9, 2, 6], [5, 3, 5, 8, 9, 7, 9], [2, 7]]
RANDOM = SamplingParams(temperature=1, top_k=0, top_p=1, repetition_penalty=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_checkpoint(tmp_path_factory.mktemp("runner") / "model"))


@pytest.fixture(scope="module")
def expected(model: str) -> list[list[int]]:
    """Four tokens after each prompt, step by step, each read before the next is launched."""
    runner = open_runner(model, EagerAccelerator())
    replies = []
    for number, prompt in enumerate(PROMPTS):
        ids = read(launch(runner, Row(number, prompt, params=RANDOM)))
        for position in range(1, 4):
            length = len(prompt) + position - 1
            row = Row(number, ids[-1:], length, position=position, params=RANDOM)
            ids += read(launch(runner, row))
        replies.append(ids)
    return replies


def one_behind(runner: GraphRunner, numbers: list[int]) -> list[list[int]]:
    """The same for all of `numbers`, but each step is launched before the last one was read."""
    steps = [launch(runner, *(Row(n, PROMPTS[n], params=RANDOM) for n in numbers))]
    ids: list[list[int]] = [[] for _ in numbers]
    for position in range(1, 4):
        rows = [
            Row(n, [-(1 + i)], len(PROMPTS[n]) + position - 1, position=position, params=RANDOM)
            for i, n in enumerate(numbers)
        ]
        steps.append(launch(runner, *rows))
        for reply, token in zip(ids, read(steps.pop(0)), strict=True):
            reply.append(token)
    for reply, token in zip(ids, read(steps.pop(0)), strict=True):
        reply.append(token)
    return ids


@pytest.mark.parametrize("make", [EagerAccelerator, LazyAccelerator])
def test_a_pending_id_is_the_one_that_the_step_before_samples(
    make: Callable[[], Accelerator], model: str, expected: list[list[int]]
) -> None:
    runner = open_runner(model, make())
    assert one_behind(runner, [0, 1, 2, 3]) == expected
    assert one_behind(runner, [2, 0]) == [expected[2], expected[0]]


def two_in_flight(runner: GraphRunner) -> list[list[int]]:
    """Two prompts in steps of their own, the second launched before the first was read."""
    steps = [launch(runner, Row(n, PROMPTS[n], params=RANDOM)) for n in (0, 1)]
    return [read(step) for step in steps]


def test_two_steps_in_flight_do_not_share_memory(model: str, expected: list[list[int]]) -> None:
    right = [expected[0][:1], expected[1][:1]]
    assert two_in_flight(open_runner(model, LazyAccelerator())) == right


def test_one_pinned_buffer_for_two_steps_is_noticed(
    model: str, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_runner, "NUM_SLOTS", 1)
    right = [expected[0][:1], expected[1][:1]]
    assert two_in_flight(open_runner(model, LazyAccelerator())) != right


def test_reading_before_the_event_is_noticed(
    model: str, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = open_runner(model, LazyAccelerator())
    step = launch(runner, Row(0, PROMPTS[0], params=RANDOM))
    monkeypatch.setattr(step, "event", Done())
    assert read(step) != expected[0][:1]


def test_the_ids_of_a_step_are_not_those_of_an_earlier_one(
    model: str, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pending id that stays what it was, as if nobody filled it in, is noticed."""

    def first_id(token_ids: Tensor, sampled: Tensor) -> Tensor:
        return token_ids.clamp(min=0)

    monkeypatch.setattr(device_step, "take_ids", first_id)
    assert one_behind(open_runner(model, LazyAccelerator()), [0, 1, 2, 3]) != expected


def test_a_third_step_is_refused(model: str) -> None:
    runner = open_runner(model, LazyAccelerator())
    for number in range(2):
        launch(runner, Row(number, PROMPTS[number]))
    with pytest.raises(RuntimeError, match="too many steps"):
        launch(runner, Row(2, PROMPTS[2]))


def test_a_step_without_logits_samples_nothing(model: str, expected: list[list[int]]) -> None:
    runner = open_runner(model, LazyAccelerator())
    prompt = PROMPTS[2] * 3  # two chunks of different kinds: 18 rows, then 3
    assert read(launch(runner, Row(0, prompt[:18], num_logits=0))) == []
    chunked = read(launch(runner, Row(0, prompt[18:], 18)))
    assert chunked == read(launch(runner, Row(1, prompt)))


class ShortOfMemory:
    """Fails one launch of the model as torch does, after some of it has run."""

    def __init__(self, runner: GraphRunner) -> None:
        self._forward = runner.model.hidden
        self.is_short = False

    def __call__(self, token_ids: Tensor, *rest: object) -> Tensor:
        x: Tensor = self._forward(token_ids, *rest)  # type: ignore[arg-type]
        if self.is_short:
            self.is_short = False
            raise torch.OutOfMemoryError("CUDA out of memory.\nA long table.")
        return x


@pytest.mark.parametrize("make", [EagerAccelerator, LazyAccelerator])
def test_a_step_that_finds_no_memory_costs_only_itself(
    make: Callable[[], Accelerator],
    model: str,
    expected: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner = open_runner(model, make())
    short = ShortOfMemory(runner)
    monkeypatch.setattr(runner.model, "hidden", short)
    for _ in range(5):
        short.is_short = True
        with pytest.raises(StepMemoryError, match=r"^CUDA out of memory\.$"):
            read(launch(runner, Row(0, PROMPTS[0], params=RANDOM)))
    assert one_behind(runner, [0, 1, 2, 3]) == expected


def test_a_step_beside_one_that_failed_still_ends(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = open_runner(model, LazyAccelerator())
    short = ShortOfMemory(runner)
    monkeypatch.setattr(runner.model, "hidden", short)
    short.is_short = True
    steps: list[GraphStep] = [launch(runner, Row(n, PROMPTS[n])) for n in (0, 1)]
    with pytest.raises(StepMemoryError):
        read(steps[0])
    assert read(steps[1]) == read(launch(runner, Row(2, PROMPTS[1])))


def test_a_decode_of_34_layers_is_one_graph_of_few_launches(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    model = str(make_checkpoint(tmp_path_factory.mktemp("deep") / "model", layers=34, head_dim=16))
    # A context of several pieces, whose partial results take a launch of their own to merge.
    settings = {"max_model_len": 256, "max_num_seqs": 1, "num_speculative_tokens": 0}
    runner = open_runner(model, EagerAccelerator(), **settings)
    before = runner.num_replays
    with counted_launches() as counts:
        read(launch(runner, Row(0, [1])))
    assert runner.num_replays == before + 1
    assert 34 * 6 <= counts.total() <= 240, counts


def test_memory_that_is_short_as_the_sampler_encodes_costs_only_the_step(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fills counts with work of its own."""
    runner = open_runner(model, EagerAccelerator())
    encode = runner._sampler.encode

    def short(*args: object) -> None:
        encode(*args)  # type: ignore[arg-type]
        raise torch.OutOfMemoryError("CUDA out of memory.")

    expected = read(launch(runner, Row(0, PROMPTS[0])))
    monkeypatch.setattr(runner._sampler, "encode", short)
    with pytest.raises(StepMemoryError):
        launch(runner, Row(0, PROMPTS[0]))
    monkeypatch.undo()
    assert read(launch(runner, Row(0, PROMPTS[0]))) == expected
