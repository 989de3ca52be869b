"""Feeds requests to an engine at their arrival times and records when their tokens come.

All offline benchmarks run on it. It does not depend on models or tables.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.sampling_params import SamplingParams


class StepEngine(Protocol):
    """The part of `moss_tp.engine.llm_engine.LLMEngine` that `drive` uses."""

    @property
    def has_work(self) -> bool: ...
    @property
    def can_add(self) -> bool: ...
    @property
    def forward_s(self) -> float: ...
    def add_request(self, request: EngineRequest) -> None: ...
    def start_step(self) -> None: ...
    def take_deltas(self) -> Sequence[tuple[str, TokenDelta]]: ...
    def finish_step(self) -> None: ...


@dataclass(frozen=True)
class BenchRequest:
    """`arrival_s` is in seconds after the start of the run."""

    prompt_ids: Sequence[int]
    params: SamplingParams
    arrival_s: float = 0.0


@dataclass
class Trace:
    """The output of one request. `token_times` has one entry per token, in seconds after the
    start of the run, `forward_times` the engine's `forward_s` at that time; `num_cached` prompt
    tokens came from the prefix cache."""

    request: BenchRequest
    token_ids: list[int] = field(default_factory=list)
    token_times: list[float] = field(default_factory=list)
    forward_times: list[float] = field(default_factory=list)
    num_cached: int = 0

    @property
    def ttft_s(self) -> float:
        """Time to first token."""
        return self.token_times[0] - self.request.arrival_s

    @property
    def moments(self) -> list[tuple[float, float]]:
        """The time of each token, and the engine's `forward_s` by then."""
        return list(zip(self.token_times, self.forward_times, strict=True))

    @property
    def gaps_s(self) -> list[float]:
        """Inter-token latencies."""
        return [after - before for before, after in pairwise(self.token_times)]

    def add(self, delta: TokenDelta, seconds: float, forward_s: float) -> None:
        self.token_ids.extend(delta.token_ids)
        self.token_times.extend([seconds] * len(delta.token_ids))
        self.forward_times.extend([forward_s] * len(delta.token_ids))
        self.num_cached = delta.num_cached_tokens


def greedy(max_tokens: int) -> SamplingParams:
    """Greedy decoding of exactly `max_tokens` tokens."""
    return SamplingParams(
        temperature=0,
        top_p=1,
        top_k=0,
        repetition_penalty=1,
        max_tokens=max_tokens,
        ignore_eos=True,
    )


def drive(
    engine: StepEngine,
    requests: Sequence[BenchRequest],
    now: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Trace]:
    """Runs all requests to completion; returns their traces in the order of `requests`."""
    traces = [Trace(request) for request in requests]
    by_arrival = sorted(range(len(requests)), key=lambda index: requests[index].arrival_s)
    queue = deque(by_arrival)
    start = now()
    while queue or engine.has_work:
        while queue and engine.can_add and requests[queue[0]].arrival_s <= now() - start:
            index = queue.popleft()
            request = requests[index]
            engine.add_request(EngineRequest(str(index), request.prompt_ids, request.params))
        if not engine.has_work:
            sleep(max(0.0, requests[queue[0]].arrival_s - (now() - start)))
            continue
        engine.start_step()
        deltas = engine.take_deltas()
        seconds, forward_s = now() - start, engine.forward_s
        for request_id, delta in deltas:
            traces[int(request_id)].add(delta, seconds, forward_s)
        engine.finish_step()
    return traces


def end_s(traces: Sequence[Trace]) -> float:
    """When the last token came, in seconds after the start of the run."""
    return max(trace.token_times[-1] for trace in traces)
