"""A mixed workload: throughput and latency of requests of many lengths, at once or over time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from serve_app.bench.engine_bench import WARM_UP_NEW, WARM_UP_PROMPT
from serve_app.bench.load.drive import StepEngine, Trace, drive, end_s
from serve_app.bench.load.workload import MixedSpec, mixed_requests, same_requests
from serve_app.bench.reporting.figures import Chart, Row, Section, median, milliseconds, quantile

WARM_UP_BATCH = 8


@dataclass(frozen=True)
class MixedRun:
    """One run of the workload; `ttft_s` has one entry per request, `gaps_s` one per token."""

    seconds: float
    prompt_tokens: int
    output_tokens: int
    ttft_s: list[float]
    gaps_s: list[float]


def measure_mixed(
    engine: StepEngine, spec: MixedSpec, seed: int, random: Random, vocab_size: int
) -> MixedRun:
    """Runs the workload once: the lengths of `seed`, new token ids on every call."""
    warm_up = same_requests(random, WARM_UP_BATCH, WARM_UP_PROMPT, WARM_UP_NEW, vocab_size)
    drive(engine, warm_up)
    return summarize(drive(engine, mixed_requests(spec, seed, random, vocab_size)))


def summarize(traces: Sequence[Trace]) -> MixedRun:
    """Totals and latencies of a finished run."""
    return MixedRun(
        seconds=end_s(traces),
        prompt_tokens=sum(len(trace.request.prompt_ids) for trace in traces),
        output_tokens=sum(len(trace.token_ids) for trace in traces),
        ttft_s=[trace.ttft_s for trace in traces],
        gaps_s=[gap for trace in traces for gap in trace.gaps_s],
    )


def mixed_section(runs: Mapping[str, Sequence[MixedRun]], spec: MixedSpec) -> Section:
    """Medians over the runs of each engine. `output_tok_s` counts output tokens, `total_tok_s`
    prompt tokens as well."""
    rows = [_row(name, repeats) for name, repeats in runs.items()]
    arrivals = f"{spec.rate:g} a second" if spec.rate else "all at once"
    title = (
        f"mixed: {spec.num_requests} requests {arrivals}, prompts of "
        f"{spec.prompt[0]}-{spec.prompt[1]} tokens, outputs of {spec.output[0]}-{spec.output[1]}"
    )
    ttft = {name: _distribution(repeats[-1].ttft_s) for name, repeats in runs.items()}
    chart = Chart("line", "requests served, %", "time to first token, s", ttft)
    return Section("mixed", title, rows, [chart])


def _row(name: str, runs: Sequence[MixedRun]) -> Row:
    def quantile_ms(q: float, field: str) -> float:
        return milliseconds(median([quantile(getattr(run, field), q) for run in runs]))

    total_tok_s = [(run.prompt_tokens + run.output_tokens) / run.seconds for run in runs]
    return {
        "engine": name,
        "seconds": round(median([run.seconds for run in runs]), 2),
        "output_tok_s": round(median([run.output_tokens / run.seconds for run in runs]), 1),
        "total_tok_s": round(median(total_tok_s), 1),
        "ttft_p50_ms": quantile_ms(0.5, "ttft_s"),
        "ttft_p99_ms": quantile_ms(0.99, "ttft_s"),
        "gap_p50_ms": quantile_ms(0.5, "gaps_s"),
        "gap_p99_ms": quantile_ms(0.99, "gaps_s"),
    }


def _distribution(seconds: Sequence[float]) -> list[tuple[float, float]]:
    """The cumulative distribution: `(percent of requests, seconds)`."""
    ordered = sorted(seconds)
    return [(100 * (i + 1) / len(ordered), value) for i, value in enumerate(ordered)]
