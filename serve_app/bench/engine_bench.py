"""Decode throughput by batch size and prefill time by prompt length, beside the roofline.

Measured the way scripts for other engines do it: `prefill_s` is the time of a batch of new prompts
with one output token each. Decode throughput comes from a second batch with more output tokens,
less that time. `step_ms` is the median step while the whole batch decodes, and `host_ms` the
median of what a step takes outside the model's forward pass on rank 0: scheduling, the batch and
its tensors, sampling, updating the sequences, text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from moss_tp.config import ModelConfig
from moss_tp.hardware.rates import GpuRates
from moss_tp.hardware.roofline import ITEM_BYTES, StepCost, decode_cost, prefill_cost
from serve_app.bench.hardware.machine import Machine
from serve_app.bench.load.drive import StepEngine, Trace, drive, end_s
from serve_app.bench.load.workload import same_requests
from serve_app.bench.reporting.figures import Chart, Row, Section, median, milliseconds

WARM_UP_PROMPT, WARM_UP_NEW = 16, 4


@dataclass(frozen=True)
class TableSpec:
    """`batches` of prompts of `prompt` tokens that decode `new` tokens each, and single prompts
    of `prefills` tokens."""

    batches: tuple[int, ...] = (1, 8, 32)
    prompt: int = 128
    new: int = 64
    prefills: tuple[int, ...] = (128, 512, 1024)


@dataclass(frozen=True)
class DecodeRun:
    """Seconds of one batch: its prefill, all its decode steps, and the median decode step."""

    prefill_s: float
    decode_s: float
    step_s: float
    host_s: float


@dataclass(frozen=True)
class TableRun:
    """One pass over a TableSpec: `decode` by batch size, `prefill_s` by prompt length."""

    decode: dict[int, DecodeRun]
    prefill_s: dict[int, float]


@dataclass(frozen=True)
class Limits:
    """The roofline of a model on a machine. `streamed_bytes` come from pinned host memory in every
    step, beside what the card's memory delivers."""

    model: ModelConfig
    machine: Machine | GpuRates
    streamed_bytes: int = 0

    def decode(self, spec: TableSpec, batch: int) -> StepCost:
        """A decode step in the middle of the reply."""
        context = spec.prompt + spec.new // 2
        return decode_cost(self.model, batch, context, ITEM_BYTES[self.machine.dtype])

    def prefill(self, tokens: int) -> StepCost:
        return prefill_cost(self.model, tokens, ITEM_BYTES[self.machine.dtype])

    def limit_s(self, cost: StepCost) -> float:
        """The shortest time of such a step."""
        return max(cost.limit_s(self.machine), self._bus_s)

    def bound(self, cost: StepCost) -> str:
        """What limits it: `memory`, `compute` or `bus`."""
        is_bus = self._bus_s > cost.limit_s(self.machine)
        return "bus" if is_bus else cost.bound(self.machine)

    @property
    def _bus_s(self) -> float:
        if not isinstance(self.machine, GpuRates):
            return 0.0
        return self.streamed_bytes / self.machine.pinned_bytes_s


def measure_tables(
    engine: StepEngine, spec: TableSpec, random: Random, vocab_size: int
) -> TableRun:
    """One pass. Prompts are new on every call, so the prefix cache holds none of them."""

    def run(batch: int, prompt: int, new: int) -> list[Trace]:
        return drive(engine, same_requests(random, batch, prompt, new, vocab_size))

    decode = {}
    for batch in spec.batches:
        run(batch, WARM_UP_PROMPT, WARM_UP_NEW)
        prefill_s = end_s(run(batch, spec.prompt, 1))
        traces = run(batch, spec.prompt, spec.new + 1)
        decode[batch] = DecodeRun(prefill_s, end_s(traces) - prefill_s, *steady_step_s(traces))
    return TableRun(decode, {length: end_s(run(1, length, 1)) for length in spec.prefills})


def steady_step_s(traces: Sequence[Trace]) -> tuple[float, float]:
    """The median step, and the median of its part outside the model's forward pass, while all of
    `traces` decode; 0.0 if they never decode together."""
    begin = max(trace.token_times[0] for trace in traces)
    end = min(trace.token_times[-1] for trace in traces)
    moments = {moment for trace in traces for moment in trace.moments if begin <= moment[0] <= end}
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(sorted(moments))]
    return median([step for step, _ in steps]), median([step - model for step, model in steps])


def table_sections(
    runs: Mapping[str, Sequence[TableRun]], spec: TableSpec, limits: Limits
) -> list[Section]:
    """Medians over the runs of each engine, beside the roofline."""
    decode = [
        _decode_row(name, batch, [run.decode[batch] for run in repeats], spec, limits)
        for name, repeats in runs.items()
        for batch in spec.batches
    ]
    prefill = [
        _prefill_row(name, length, [run.prefill_s[length] for run in repeats], limits)
        for name, repeats in runs.items()
        for length in spec.prefills
    ]
    title = f"decode: {spec.prompt}-token prompts, {spec.new} new tokens each"
    return [
        Section("decode", title, decode, [_chart("batch", decode)]),
        Section("prefill", "prefill: one prompt", prefill, [_chart("tokens", prefill)]),
    ]


def _decode_row(
    name: str, batch: int, runs: Sequence[DecodeRun], spec: TableSpec, limits: Limits
) -> Row:
    cost = limits.decode(spec, batch)
    tok_s = median([spec.new * batch / run.decode_s for run in runs])
    limit = batch / limits.limit_s(cost)
    return {
        "engine": name,
        "batch": batch,
        "tok_s": round(tok_s, 1),
        "step_ms": milliseconds(median([run.step_s for run in runs])),
        "host_ms": milliseconds(median([run.host_s for run in runs])),
        "prefill_s": round(median([run.prefill_s for run in runs]), 4),
        "step_MB": round(cost.bytes / 1e6, 1),
        "step_GFLOP": round(cost.flops / 1e9, 2),
        "limit_tok_s": round(limit, 1),
        "bound": limits.bound(cost),
        "of_limit": round(tok_s / limit, 3),
    }


def _prefill_row(name: str, tokens: int, seconds: Sequence[float], limits: Limits) -> Row:
    cost = limits.prefill(tokens)
    median_s, limit_s = median(seconds), limits.limit_s(cost)
    return {
        "engine": name,
        "tokens": tokens,
        "seconds": round(median_s, 4),
        "tok_s": round(tokens / median_s, 1),
        "MB": round(cost.bytes / 1e6, 1),
        "GFLOP": round(cost.flops / 1e9, 2),
        "limit_tok_s": round(tokens / limit_s, 1),
        "bound": limits.bound(cost),
        "of_limit": round(limit_s / median_s, 3),
    }


def _chart(x: str, rows: Sequence[Row]) -> Chart:
    """Bars by engine, and the limit, which is the same for all engines."""
    series: dict[str, list[tuple[object, float]]] = {}
    for row in rows:
        series.setdefault(row["engine"], []).append((row[x], row["tok_s"]))
    first = rows[0]["engine"] if rows else ""
    series["limit"] = [(row[x], row["limit_tok_s"]) for row in rows if row["engine"] == first]
    return Chart("bar", x, "tokens a second", series)
