"""Requests of many lengths at once, or arriving by chance: how much, and how long people wait."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from serve_app.bench.engine_bench import WARM_NEW, WARM_PROMPT
from serve_app.bench.load.drive import StepEngine, Trace, drive, end_s
from serve_app.bench.load.workload import MixedSpec, mixed_requests, same_requests
from serve_app.bench.reporting.figures import Chart, Row, Section, middle, milliseconds, quantile

WARM_BATCH = 8


@dataclass(frozen=True)
class MixedRun:
    seconds: float
    prompt_tokens: int
    output_tokens: int
    ttft_s: list[float]
    gaps_s: list[float]


def measure_mixed(
    engine: StepEngine, spec: MixedSpec, seed: int, random: Random, vocab_size: int
) -> MixedRun:
    """The same lengths on every call, with new ids."""
    drive(engine, same_requests(random, WARM_BATCH, WARM_PROMPT, WARM_NEW, vocab_size))
    traces = drive(engine, mixed_requests(spec, seed, random, vocab_size))
    return summarize(traces)


def summarize(traces: Sequence[Trace]) -> MixedRun:
    return MixedRun(
        seconds=end_s(traces),
        prompt_tokens=sum(len(trace.request.prompt_ids) for trace in traces),
        output_tokens=sum(len(trace.token_ids) for trace in traces),
        ttft_s=[trace.ttft_s for trace in traces],
        gaps_s=[gap for trace in traces for gap in trace.gaps_s],
    )


def mixed_section(runs: Mapping[str, Sequence[MixedRun]], spec: MixedSpec) -> Section:
    """Medians over each variant's runs. `output_tok_s` counts new tokens, `total_tok_s` the
    prompts' as well."""
    rows = [_row(name, found) for name, found in runs.items()]
    arrivals = f"{spec.rate:g} a second" if spec.rate else "all at once"
    title = (
        f"mixed: {spec.num_requests} requests {arrivals}, prompts of "
        f"{spec.prompt[0]}-{spec.prompt[1]} tokens, outputs of {spec.output[0]}-{spec.output[1]}"
    )
    waits = {name: _waits(found[-1].ttft_s) for name, found in runs.items()}
    return Section(
        "mixed", title, rows, [Chart("line", "requests served, %", "time to first token, s", waits)]
    )


def _row(name: str, runs: Sequence[MixedRun]) -> Row:
    def over(share: float, field: str) -> float:
        return milliseconds(middle([quantile(getattr(run, field), share) for run in runs]))

    return {
        "engine": name,
        "seconds": round(middle([run.seconds for run in runs]), 2),
        "output_tok_s": round(middle([run.output_tokens / run.seconds for run in runs]), 1),
        "total_tok_s": round(
            middle([(run.prompt_tokens + run.output_tokens) / run.seconds for run in runs]), 1
        ),
        "ttft_p50_ms": over(0.5, "ttft_s"),
        "ttft_p99_ms": over(0.99, "ttft_s"),
        "gap_p50_ms": over(0.5, "gaps_s"),
        "gap_p99_ms": over(0.99, "gaps_s"),
    }


def _waits(ttft_s: Sequence[float]) -> list[tuple[float, float]]:
    ordered = sorted(ttft_s)
    return [(100 * (i + 1) / len(ordered), seconds) for i, seconds in enumerate(ordered)]
