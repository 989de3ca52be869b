"""Engines of the check: one rank, weights made on the device, no tokenizer; and how to drive them.

On a CPU they compute the GPU's steps, so that every part runs without one.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from moss_tp.config import ModelConfig
from moss_tp.engine.llm_engine import LLMEngine, ModelIds
from moss_tp.engine.request import EngineRequest
from moss_tp.engine.running.driver import Driver
from moss_tp.engine.running.kv_budget import choose_num_blocks
from moss_tp.engine.running.runner import Runner
from moss_tp.engine.running.worker import RankSpec, build_rank
from moss_tp.engine_config import EngineConfig
from moss_tp.gpu_check.check import Check
from moss_tp.gpu_check.shapes import Bytes
from moss_tp.sampling_params import SamplingParams

EOS = 0
NUM_THREADS = 4  # of the host


@dataclass(frozen=True)
class Opened:
    """An engine and what it runs on."""

    engine: LLMEngine
    driver: Driver
    runner: Runner


@contextmanager
def opened(check: Check, model: Path, dtype: str, **settings: Any) -> Iterator[Opened]:
    """An engine for `model`, a directory, with further fields of EngineConfig in `settings`."""
    limits = ModelConfig.from_dir(model)
    fields = {"device": "cuda", "dtype": dtype, "num_threads": NUM_THREADS, **settings}
    config = EngineConfig(model=str(model), **fields).resolve(limits)
    device = check.plan.device if config.device == "cuda" else config.device
    runner = build_rank(RankSpec(config, 0, device, ("", 0), NUM_THREADS))
    driver = Driver(runner, choose_num_blocks(runner, config), config.step_limit_s)
    engine = LLMEngine(config, driver, Bytes(), ModelIds(limits.vocab_size, (EOS,)))
    try:
        yield Opened(engine, driver, runner)
    finally:
        engine.close()


@dataclass
class Trace:
    """A request's reply, and when its tokens came, in seconds of `time.perf_counter`."""

    token_ids: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


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
