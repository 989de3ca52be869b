"""Engines of the check: one rank, weights made on the device, no tokenizer; and how to drive them.

On a CPU they compute the GPU's steps, so that every part runs without one.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from moss_tp.accelerator.base import Accelerator
from moss_tp.config import ModelConfig
from moss_tp.engine.letters import Letters
from moss_tp.engine.llm_engine import LLMEngine, ModelIds
from moss_tp.engine.request import EngineRequest
from moss_tp.engine.running.driver import Driver
from moss_tp.engine.running.executor import Executor
from moss_tp.engine.running.kv_budget import choose_num_blocks
from moss_tp.engine.running.local_executor import LocalExecutor
from moss_tp.engine.running.worker import RankSpec, build_rank
from moss_tp.engine_config import EngineConfig
from moss_tp.gpu_check.check import Check
from moss_tp.sampling.row import SampledToken
from moss_tp.sampling_params import SamplingParams

EOS = 0
NUM_THREADS = 4  # of the host


class OneCard(LocalExecutor):
    """All ranks on one GPU, which sum over the host; or all on the CPU."""

    def __init__(self, config: EngineConfig, device: str) -> None:
        self._device = device
        super().__init__(config)

    def _spec(self, rank: int, port: int) -> RankSpec:
        return replace(super()._spec(rank, port), device=self._device)


@contextmanager
def opened(
    check: Check,
    model: Path,
    dtype: str,
    accelerator: Accelerator | None = None,
    **settings: Any,
) -> Iterator[LLMEngine]:
    """An engine for `model`, a directory, with further fields of EngineConfig in `settings`.
    `accelerator` replaces the device's own, of a single rank."""
    limits = ModelConfig.from_dir(model)
    fields = {"device": "cuda", "dtype": dtype, "num_threads": NUM_THREADS, **settings}
    config = EngineConfig(model=str(model), **fields).resolve(limits)
    device = check.plan.device if config.device == "cuda" else config.device
    executor: Executor
    if config.tp_size > 1:
        executor = OneCard(config, device)
    else:
        runner = build_rank(RankSpec(config, 0, device, ("", 0), NUM_THREADS, accelerator))
        executor = Driver(runner, choose_num_blocks(runner, config), config.step_limit_s)
    engine = LLMEngine(config, executor, Letters(), ModelIds(limits.vocab_size, (EOS,)))
    try:
        yield engine
    finally:
        engine.close()


@dataclass
class Trace:
    """A request's reply, and when its tokens came, in seconds of `time.perf_counter`."""

    token_ids: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    num_cached: int = 0  # tokens of the prompt that the prefix cache had
    scores: tuple[SampledToken, ...] = ()  # of the prompt, where the request wants them


def drive(engine: LLMEngine, requests: Sequence[EngineRequest]) -> dict[str, Trace]:
    """All replies by the requests' ids."""
    traces = {request.request_id: Trace() for request in requests}
    for request in requests:
        engine.add_request(request)
    while engine.has_work:
        engine.start_step()
        deltas = engine.take_deltas()
        engine.finish_step()
        now = time.perf_counter()
        for request_id, delta in deltas:
            traces[request_id].token_ids += delta.token_ids
            traces[request_id].times += [now] * len(delta.token_ids)
            traces[request_id].num_cached = delta.num_cached_tokens
            traces[request_id].scores = delta.prompt_logprobs or traces[request_id].scores
    return traces


def greedy(max_tokens: int) -> SamplingParams:
    """Exactly `max_tokens` tokens, the most probable ones."""
    return SamplingParams(
        temperature=0, repetition_penalty=1, max_tokens=max_tokens, ignore_eos=True
    )


def random_ids(random: Random, count: int, vocab_size: int) -> list[int]:
    """Without eos."""
    return [random.randrange(1, vocab_size) for _ in range(count)]


def requests(
    random: Random, batch: int, prompt: int, new: int, vocab_size: int
) -> list[EngineRequest]:
    """Of random prompts, so that none is in the prefix cache."""
    return [
        EngineRequest(str(index), random_ids(random, prompt, vocab_size), greedy(new))
        for index in range(batch)
    ]
