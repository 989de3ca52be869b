"""Concurrent streams over HTTP, beside the engine alone on the same prompts."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from string import ascii_lowercase

from moss_tp.config import resolve_model
from moss_tp.engine.llm_engine import LLMEngine
from moss_tp.sampling_params import SamplingParams
from moss_tp.tokenizer import Tokenizer
from serve_app.bench.load.cpu_time import KINDS, CpuSeconds, no_meter, used
from serve_app.bench.load.drive import BenchRequest, drive, end_s
from serve_app.bench.load.sse_client import SseClient, StreamedTurn
from serve_app.bench.reporting.figures import Chart, Row, Section, median, milliseconds, quantile
from serve_app.prompt.choose import build_prompts
from serve_app.settings import dialogue_of

Ask = Callable[[str], Awaitable[StreamedTurn]]
Meter = Callable[[], CpuSeconds]

GREEDY = SamplingParams(temperature=0, top_p=0.8)  # what the server makes of `temperature: 0`


@dataclass(frozen=True)
class StreamSpec:
    """`max_length` bounds prompt and output together, as in the API."""

    num_streams: int = 32
    prompt_chars: int = 128
    max_length: int = 512


@dataclass(frozen=True)
class Burst:
    """One run of all streams of a spec. `seconds` is from the first request to the last piece.

    `cpu_s` is the CPU time of the server's processes by kind, empty if nobody has measured it.
    """

    prompts: list[str]
    turns: list[StreamedTurn]
    output_tokens: int
    cpu_s: CpuSeconds = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return max(turn.end for turn in self.turns) - min(turn.start for turn in self.turns)

    @property
    def tok_s(self) -> float:
        return self.output_tokens / self.seconds

    def cpu_ms(self, kind: str) -> float:
        """CPU milliseconds per 1,000 tokens of the processes of a kind."""
        return 1e6 * self.cpu_s[kind] / self.output_tokens

    @property
    def outside_ms(self) -> float:
        """The same of all processes but the model's."""
        return sum(self.cpu_ms(kind) for kind in self.cpu_s if kind != "replica")


def random_text(random: Random, length: int) -> str:
    """Random letters, which never form a marker or a command."""
    return "".join(random.choices(ascii_lowercase, k=length))


def random_texts(random: Random, spec: StreamSpec) -> list[str]:
    """A new prompt for each stream."""
    return [random_text(random, spec.prompt_chars) for _ in range(spec.num_streams)]


async def measure_burst(
    client: SseClient, prompts: list[str], ask: Ask, meter: Meter = no_meter
) -> Burst:
    """All `prompts` at once, each a stream of its own."""
    before, cpu_before = await client.counts(), meter()
    turns = await asyncio.gather(*map(ask, prompts))
    cpu_s = used(cpu_before, meter())
    return Burst(prompts, turns, (await client.counts()).since(before).output, cpu_s)


async def measure_streams(
    client: SseClient, spec: StreamSpec, random: Random, meter: Meter = no_meter
) -> Burst:
    """One burst of the demo API with new prompts. Plugins are off; both passes run."""

    def ask(prompt: str) -> Awaitable[StreamedTurn]:
        return client.turn(prompt, temperature=0, plugins=[], max_length=spec.max_length)

    return await measure_burst(client, random_texts(random, spec), ask, meter)


async def compare_streams(
    url: str,
    spec: StreamSpec,
    offline_tok_s: Callable[[Burst], float] | None,
    repeats: int,
    random: Random,
    meter: Meter = no_meter,
) -> tuple[list[Burst], list[float]]:
    """Bursts on the server, alternating with `offline_tok_s` on each burst's prompts."""
    bursts, offline = [], []
    async with SseClient(url) as client:
        await client.turn(random_text(random, spec.prompt_chars), max_length=spec.max_length)
        for _ in range(repeats):
            bursts.append(await measure_streams(client, spec, random, meter))
            if offline_tok_s is not None:
                offline.append(offline_tok_s(bursts[-1]))
    return bursts, offline


def engine_tok_s(engine: LLMEngine, model: str, spec: StreamSpec, burst: Burst) -> float:
    """Tokens per second of the engine alone, on the prompts of `burst` and with as many output
    tokens per stream."""
    directory = resolve_model(model)
    prompts = build_prompts(Tokenizer.from_dir(directory), directory, dialogue_of(model))
    new = max(1, round(burst.output_tokens / len(burst.prompts)))
    params = replace(GREEDY, max_tokens=new, ignore_eos=True)
    requests = [
        BenchRequest(prompts.build((), text, (), spec.max_length).token_ids, params)
        for text in burst.prompts
    ]
    traces = drive(engine, requests)
    return sum(len(trace.token_ids) for trace in traces) / end_s(traces)


def stream_section(bursts: Sequence[Burst], offline: Sequence[float], spec: StreamSpec) -> Section:
    """Medians over the bursts; `offline` is empty if no engine was measured beside them."""
    row = stream_row(bursts, spec)
    bars: dict[str, list[tuple[object, float]]] = {"over HTTP": [("", row["tok_s"])]}
    if offline:
        row |= {"offline_tok_s": round(median(offline), 1)}
        pairs = zip(bursts, offline, strict=True)
        row |= {"of_offline": round(median([burst.tok_s / alone for burst, alone in pairs]), 3)}
        bars["engine alone"] = [("", median(offline))]
    title = f"serve: {spec.num_streams} streams over HTTP, {spec.prompt_chars}-letter prompts"
    return Section("serve", title, [row], [Chart("bar", "", "tokens a second", bars)])


def cpu_section(bursts: Mapping[str, Sequence[Burst]]) -> Section:
    """CPU milliseconds per 1,000 tokens by kind of process, of the bursts of each API: medians."""
    rows = [{"api": name, **_cpu_row(each)} for name, each in bursts.items()]
    title = "CPU milliseconds per 1,000 tokens; outside: all processes but the model's ranks"
    return Section("cpu", title, rows)


def _cpu_row(bursts: Sequence[Burst]) -> Row:
    by_kind = {kind: round(median([b.cpu_ms(kind) for b in bursts]), 1) for kind in KINDS}
    return {**by_kind, "outside": round(median([burst.outside_ms for burst in bursts]), 1)}


def stream_row(bursts: Sequence[Burst], spec: StreamSpec) -> Row:
    """Medians over the bursts."""
    return {
        "streams": spec.num_streams,
        "tokens_a_stream": round(bursts[-1].output_tokens / spec.num_streams, 1),
        "tok_s": round(median([burst.tok_s for burst in bursts]), 1),
        "first_p50_ms": _first_ms(bursts, 0.5),
        "first_p99_ms": _first_ms(bursts, 0.99),
        "gap_p50_ms": _gap_ms(bursts, 0.5),
        "gap_p99_ms": _gap_ms(bursts, 0.99),
    }


def _first_ms(bursts: Sequence[Burst], q: float) -> float:
    """The median over bursts of the `q` quantile of the time to the first piece."""
    firsts = [[turn.first_s for turn in burst.turns] for burst in bursts]
    return milliseconds(median([quantile(values, q) for values in firsts]))


def _gap_ms(bursts: Sequence[Burst], q: float) -> float:
    """The median over bursts of the `q` quantile of the time between pieces."""
    gaps = [[gap for turn in burst.turns for gap in turn.gaps_s] for burst in bursts]
    return milliseconds(median([quantile(values, q) for values in gaps]))
