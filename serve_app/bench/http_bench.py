"""Many streams at once over HTTP, beside the engine alone on the same prompts; a chat by uid."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from string import ascii_lowercase

from moss_tp.config import resolve_model
from moss_tp.engine.llm_engine import LLMEngine
from moss_tp.sampling_params import SamplingParams
from moss_tp.tokenizer import Tokenizer
from serve_app.bench.chat_bench import ChatTurn
from serve_app.bench.load.drive import BenchRequest, drive, end_s
from serve_app.bench.load.sse_client import SseClient, StreamedTurn
from serve_app.bench.reporting.figures import Chart, Row, Section, middle, milliseconds, quantile
from serve_app.prompt.choose import build_prompts
from serve_app.settings import dialogue_of

GREEDY = SamplingParams(temperature=0, top_p=0.8)  # what the server makes of `temperature: 0`


@dataclass(frozen=True)
class StreamSpec:
    """`max_length` bounds prompt and everything generated, as in the API."""

    num_streams: int = 32
    prompt_chars: int = 128
    max_length: int = 512


@dataclass(frozen=True)
class Burst:
    """All streams of a spec, once. `seconds` from the first request to the last piece."""

    prompts: list[str]
    turns: list[StreamedTurn]
    output_tokens: int

    @property
    def seconds(self) -> float:
        return max(turn.end for turn in self.turns) - min(turn.start for turn in self.turns)

    @property
    def tok_s(self) -> float:
        return self.output_tokens / self.seconds


def random_text(random: Random, length: int) -> str:
    """Letters, so that a chat's own text never is a marker or a command."""
    return "".join(random.choices(ascii_lowercase, k=length))


async def measure_streams(client: SseClient, spec: StreamSpec, random: Random) -> Burst:
    """New prompts on every call; plugins are off, the two passes are not."""
    prompts = [random_text(random, spec.prompt_chars) for _ in range(spec.num_streams)]
    before = await client.counts()
    fields = {"temperature": 0, "plugins": [], "max_length": spec.max_length}
    turns = await client.turns(prompts, **fields)
    return Burst(prompts, turns, (await client.counts()).since(before).output)


async def compare_streams(
    url: str,
    spec: StreamSpec,
    engine: LLMEngine | None,
    model: str,
    repeats: int,
    random: Random,
) -> tuple[list[Burst], list[float]]:
    """Bursts on the server and, in turns with them, the tokens a second of `engine`, alone."""
    bursts, offline = [], []
    async with SseClient(url) as client:
        await client.turns([random_text(random, spec.prompt_chars)], max_length=spec.max_length)
        for _ in range(repeats):
            bursts.append(await measure_streams(client, spec, random))
            if engine is not None:
                offline.append(offline_tok_s(engine, model, spec, bursts[-1]))
    return bursts, offline


def offline_tok_s(engine: LLMEngine, model: str, spec: StreamSpec, burst: Burst) -> float:
    """The engine alone, on the prompts of `burst`, with as many tokens a stream."""
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


async def measure_http_chat(client: SseClient, num_turns: int, random: Random) -> list[ChatTurn]:
    """A chat of sums, so that all turns are alike. A turn has two prompts, one a pass; both
    count whole as history, new text included, which makes the cached share look smaller."""
    fields: dict[str, str] = {}
    turns = []
    before = await client.counts()
    for _ in range(num_turns):
        sum_of = f"计算 {random.randint(10, 99)}+{random.randint(10, 99)}"
        turn = await client.turn(sum_of, **fields)
        fields = {"uid": turn.uid}
        after = await client.counts()
        seen = after.since(before)
        turns.append(ChatTurn(turn.first_s, seen.prompt, seen.prompt, seen.cached))
        before = after
    return turns


def stream_section(bursts: Sequence[Burst], offline: Sequence[float], spec: StreamSpec) -> Section:
    """Medians over the bursts; `offline` is empty where there was no engine to compare with."""
    tok_s = middle([burst.tok_s for burst in bursts])
    row: Row = {
        "streams": spec.num_streams,
        "tokens_a_stream": round(bursts[-1].output_tokens / spec.num_streams, 1),
        "tok_s": round(tok_s, 1),
        "first_p50_ms": _over(bursts, 0.5),
        "first_p99_ms": _over(bursts, 0.99),
        "gap_p50_ms": _gap(bursts, 0.5),
        "gap_p99_ms": _gap(bursts, 0.99),
    }
    bars: dict[str, list[tuple[object, float]]] = {"over HTTP": [("", tok_s)]}
    if offline:
        row |= {"offline_tok_s": round(middle(offline), 1)}
        row |= {"of_offline": round(tok_s / middle(offline), 3)}
        bars["engine alone"] = [("", middle(offline))]
    title = f"serve: {spec.num_streams} streams over HTTP, {spec.prompt_chars}-letter prompts"
    return Section("serve", title, [row], [Chart("bar", "", "tokens a second", bars)])


def _over(bursts: Sequence[Burst], share: float) -> float:
    firsts = [[turn.first_s for turn in burst.turns] for burst in bursts]
    return milliseconds(middle([quantile(values, share) for values in firsts]))


def _gap(bursts: Sequence[Burst], share: float) -> float:
    gaps = [[gap for turn in burst.turns for gap in turn.gaps_s] for burst in bursts]
    return milliseconds(middle([quantile(values, share) for values in gaps]))
