"""Decode and prefill of an engine, timed from outside, beside what the card could do."""

import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from random import Random

from moss_tp.engine.llm_engine import LLMEngine
from moss_tp.engine.request import EngineRequest
from moss_tp.gpu_check.check import Check
from moss_tp.gpu_check.tools.engines import Trace, drive, requests
from moss_tp.gpu_check.tools.fit import scale_of
from moss_tp.gpu_check.tools.shapes import Shape
from moss_tp.gpu_check.verdict import Verdict
from moss_tp.hardware.rates import GpuRates
from moss_tp.hardware.roofline import ITEM_BYTES, decode_cost, prefill_cost

NEW = 40
PREFILL_REPEATS = 3


def time_decode(
    check: Check,
    engine: LLMEngine,
    shape: Shape,
    dtype: str,
    rates: GpuRates,
    batch: int,
    prompt: int,
    bar: float | None,
) -> None:
    """The median step in which the whole batch decodes."""
    traces = drive(engine, requests(Random(batch), batch, prompt, NEW, shape.vocab_size))
    step_s = steady_step_s(list(traces.values()))
    cost = decode_cost(shape.config, batch, prompt + NEW // 2, ITEM_BYTES[dtype])
    limit = batch / cost.limit_s(rates)
    name = f"{kind_of(shape)}decode, batch {batch}, context {prompt + NEW // 2}"
    note = f"{step_s * 1e3:.2f} ms a step{scale_of(shape)}"
    check.verdict(Verdict(name, batch / step_s, "tok/s", limit, bar, note=note))


def time_prefill(
    check: Check,
    engine: LLMEngine,
    shape: Shape,
    dtype: str,
    rates: GpuRates,
    tokens: int,
    bar: float | None,
) -> None:
    """The median time of a prompt's only step, its first token included."""
    seconds = []
    for repeat in range(PREFILL_REPEATS):
        prompt = requests(Random(f"{tokens} {repeat}"), 1, tokens, 1, shape.vocab_size)
        before = time.perf_counter()
        prefill(engine, prompt)
        seconds.append(time.perf_counter() - before)
    median = statistics.median(seconds)
    cost = prefill_cost(shape.config, tokens, ITEM_BYTES[dtype])
    limit = tokens / cost.limit_s(rates)
    name, note = f"{kind_of(shape)}prefill of {tokens}", f"{median * 1e3:.1f} ms{scale_of(shape)}"
    check.verdict(Verdict(name, tokens / median, "tok/s", limit, bar, note=note))


def prefill(engine: LLMEngine, prompt: Sequence[EngineRequest]) -> None:
    """A prompt's only step. Raises RuntimeError where the prefix cache had some of it: each needs a
    seed of its own."""
    cached = drive(engine, prompt)["0"].num_cached
    if cached:
        raise RuntimeError(f"{cached} tokens of a prompt were in the prefix cache")


def steady_step_s(traces: list[Trace]) -> float:
    """The median time from one token to the next while all replies go on."""
    begin = max(trace.times[0] for trace in traces)
    end = min(trace.times[-1] for trace in traces)
    moments = sorted({at for trace in traces for at in trace.times if begin <= at <= end})
    return statistics.median([after - before for before, after in pairwise(moments)])


def kind_of(shape: Shape) -> str:
    """For a verdict's name: "int4: ", or nothing for dense weights."""
    order = " in act-order" if shape.has_act_order else ""
    return f"int{shape.bits}{order}: " if shape.bits else ""
