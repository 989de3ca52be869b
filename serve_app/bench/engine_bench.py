"""Decode over batch sizes and prefill over lengths, each beside the machine's limit.

As the scripts for other engines measure: `prefill` is the time of a batch of fresh prompts with
one new token each, and decode's tokens a second are those of a second batch with more, less that
time. `step_ms` is the median step while the whole batch decodes, and `host_ms` the median of a
step's time outside the model's forward pass on rank 0: scheduling, building the batch and its
tensors, sampling, updating sequences, text. (On a CPU; a GPU computes while the host goes on.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from moss_tp.config import ModelConfig
from serve_app.bench.drive import StepEngine, Trace, drive, end_s
from serve_app.bench.figures import Chart, Row, Section, middle, milliseconds
from serve_app.bench.machine import Machine
from serve_app.bench.roofline import ITEM_BYTES, decode_work, prefill_work
from serve_app.bench.workload import same_requests

WARM_PROMPT, WARM_NEW = 16, 4


@dataclass(frozen=True)
class TableSpec:
    """What is measured: `batches` of prompts of `prompt` tokens with `new` decoded tokens each,
    and single prompts of `prefills` tokens."""

    batches: tuple[int, ...] = (1, 8, 32)
    prompt: int = 128
    new: int = 64
    prefills: tuple[int, ...] = (128, 512, 1024)


@dataclass(frozen=True)
class DecodeRun:
    prefill_s: float
    decode_s: float
    step_s: float
    host_s: float


@dataclass(frozen=True)
class TableRun:
    """One pass over a TableSpec: by batch size, and by prompt length."""

    decode: dict[int, DecodeRun]
    prefill_s: dict[int, float]


def measure_tables(
    engine: StepEngine, spec: TableSpec, random: Random, vocab_size: int
) -> TableRun:
    """Prompts are new on every call, so the prefix cache has none of them."""

    def run(batch: int, prompt: int, new: int) -> list[Trace]:
        return drive(engine, same_requests(random, batch, prompt, new, vocab_size))

    decode = {}
    for batch in spec.batches:
        run(batch, WARM_PROMPT, WARM_NEW)
        prefill_s = end_s(run(batch, spec.prompt, 1))
        traces = run(batch, spec.prompt, spec.new + 1)
        decode[batch] = DecodeRun(prefill_s, end_s(traces) - prefill_s, *steady_step_s(traces))
    return TableRun(decode, {length: end_s(run(1, length, 1)) for length in spec.prefills})


def steady_step_s(traces: Sequence[Trace]) -> tuple[float, float]:
    """The median step, and the median of its time outside the model, while all of `traces`
    decode; 0.0 when they never do so together."""
    begin = max(trace.token_times[0] for trace in traces)
    end = min(trace.token_times[-1] for trace in traces)
    moments = sorted(
        {
            (time, forward)
            for trace in traces
            for time, forward in zip(trace.token_times, trace.forward_times, strict=True)
            if begin <= time <= end
        }
    )
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(moments)]
    return middle([step for step, _ in steps]), middle([step - model for step, model in steps])


def table_sections(
    runs: Mapping[str, Sequence[TableRun]], spec: TableSpec, shape: ModelConfig, machine: Machine
) -> list[Section]:
    """Medians over each variant's runs, with the roofline's columns."""
    decode = [
        _decode_row(name, batch, [run.decode[batch] for run in found], spec, shape, machine)
        for name, found in runs.items()
        for batch in spec.batches
    ]
    prefill = [
        _prefill_row(name, length, [run.prefill_s[length] for run in found], shape, machine)
        for name, found in runs.items()
        for length in spec.prefills
    ]
    title = f"decode: {spec.prompt}-token prompts, {spec.new} new tokens each"
    return [
        Section("decode", title, decode, [_chart("batch", decode)]),
        Section("prefill", "prefill: one prompt", prefill, [_chart("tokens", prefill)]),
    ]


def _decode_row(
    name: str,
    batch: int,
    runs: Sequence[DecodeRun],
    spec: TableSpec,
    shape: ModelConfig,
    machine: Machine,
) -> Row:
    context = spec.prompt + spec.new // 2
    work = decode_work(shape, batch, context, ITEM_BYTES[machine.dtype])
    tok_s = middle([spec.new * batch / run.decode_s for run in runs])
    limit = batch / work.limit_s(machine)
    return {
        "engine": name,
        "batch": batch,
        "tok_s": round(tok_s, 1),
        "step_ms": milliseconds(middle([run.step_s for run in runs])),
        "host_ms": milliseconds(middle([run.host_s for run in runs])),
        "prefill_s": round(middle([run.prefill_s for run in runs]), 4),
        "step_MB": round(work.bytes / 1e6, 1),
        "step_GFLOP": round(work.flops / 1e9, 2),
        "limit_tok_s": round(limit, 1),
        "bound": work.bound(machine),
        "of_limit": round(tok_s / limit, 3),
    }


def _prefill_row(
    name: str, tokens: int, seconds: Sequence[float], shape: ModelConfig, machine: Machine
) -> Row:
    work = prefill_work(shape, tokens, ITEM_BYTES[machine.dtype])
    median_s, limit_s = middle(seconds), work.limit_s(machine)
    return {
        "engine": name,
        "tokens": tokens,
        "seconds": round(median_s, 4),
        "tok_s": round(tokens / median_s, 1),
        "MB": round(work.bytes / 1e6, 1),
        "GFLOP": round(work.flops / 1e9, 2),
        "limit_tok_s": round(tokens / limit_s, 1),
        "bound": work.bound(machine),
        "of_limit": round(limit_s / median_s, 3),
    }


def _chart(x: str, rows: Sequence[Row]) -> Chart:
    series: dict[str, list[tuple[object, float]]] = {}
    for row in rows:
        series.setdefault(row["engine"], []).append((row[x], row["tok_s"]))
    first = rows[0]["engine"] if rows else ""
    series["limit"] = [(row[x], row["limit_tok_s"]) for row in rows if row["engine"] == first]
    return Chart("bar", x, "tokens a second", series)
