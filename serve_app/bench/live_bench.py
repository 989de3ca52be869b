"""What live turns cost: the same load as live turns of sessions and as stateless completions."""

from collections.abc import Awaitable, Sequence
from random import Random
from typing import Any

from serve_app.bench.http_bench import (
    Burst,
    Meter,
    StreamSpec,
    measure_burst,
    random_texts,
    stream_row,
)
from serve_app.bench.load.cpu_time import no_meter
from serve_app.bench.load.sse_client import SseClient, StreamedTurn
from serve_app.bench.reporting.figures import Section, median

STATELESS, LIVE = "chat completions", "live turns"
Bursts = dict[str, list[Burst]]


async def compare_live(
    url: str, spec: StreamSpec, repeats: int, random: Random, meter: Meter = no_meter
) -> Bursts:
    """Bursts of both, alternating, each with new prompts; after one of each that does not count."""
    bursts: Bursts = {STATELESS: [], LIVE: []}
    async with SseClient(url) as client:
        for _ in range(repeats + 1):
            bursts[STATELESS].append(await _stateless(client, spec, random, meter))
            bursts[LIVE].append(await _live(client, spec, random, meter))
    return {name: each[1:] for name, each in bursts.items()}


def _fields(spec: StreamSpec) -> dict[str, Any]:
    """A reply is half as long as all that may be generated, however long the thoughts are."""
    num_reply = max(1, spec.max_length // 2)
    return {
        "temperature": 0,
        "plugins": [],
        "max_completion_tokens": 2 * num_reply,
        "max_tokens": num_reply,
        "min_tokens": num_reply,
    }


async def _stateless(client: SseClient, spec: StreamSpec, random: Random, meter: Meter) -> Burst:
    def ask(prompt: str) -> Awaitable[StreamedTurn]:
        return client.chat(prompt, **_fields(spec))

    return await measure_burst(client, random_texts(random, spec), ask, meter)


async def _live(client: SseClient, spec: StreamSpec, random: Random, meter: Meter) -> Burst:
    """In sessions that are there already."""
    uids = [await client.new_session() for _ in range(spec.num_streams)]

    def ask(prompt: str) -> Awaitable[StreamedTurn]:
        return client.live_turn(uids.pop(), prompt, **_fields(spec))

    return await measure_burst(client, random_texts(random, spec), ask, meter)


def live_section(bursts: Bursts, spec: StreamSpec) -> Section:
    """Medians over the bursts. A ratio is the median over pairs, of live turns to stateless."""
    rows = [{"api": name, **stream_row(each, spec)} for name, each in bursts.items()]
    ratio = _ratio([b.tok_s for b in bursts[LIVE]], [b.tok_s for b in bursts[STATELESS]])
    rows[0]["of_stateless"], rows[1]["of_stateless"] = 1.0, ratio
    return Section("live", f"live: {spec.num_streams} streams, alternating", rows)


def _ratio(values: Sequence[float], bases: Sequence[float]) -> float:
    return round(median([value / base for value, base in zip(values, bases, strict=True)]), 3)
