"""`moss bench serve`: concurrent streams over HTTP, beside the engine alone."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import click

from serve_app.cli.bench.shared import Shared, shared_options
from serve_app.cli.options import with_options

if TYPE_CHECKING:
    from serve_app.bench.http_bench import Burst, Meter, StreamSpec
    from serve_app.bench.reporting.figures import Section

_OPTIONS = (
    click.option("--url", help="A running server. Default: one is started with these flags."),
    click.option("--streams", type=click.IntRange(1), default=32, show_default=True),
    click.option("--prompt-chars", type=click.IntRange(1), default=128, show_default=True),
    click.option(
        "--max-length",
        type=click.IntRange(1),
        default=512,
        show_default=True,
        help="Of prompt and reply together, as in the API.",
    ),
    click.option("--offline/--no-offline", default=True, help="Alternate with the engine alone."),
    click.option("--live", is_flag=True, help="Live turns, alternating with chat completions."),
)


@click.command()
@shared_options
@with_options(*_OPTIONS)
def serve(
    shared: Shared,
    url: str | None,
    streams: int,
    prompt_chars: int,
    max_length: int,
    offline: bool,
    live: bool,
) -> None:
    """Measure many streams at once over HTTP, and the engine alone on the same prompts.

    For the comparison, --model and the other engine flags must be those of the server. Without
    --url also the CPU time of the server's processes, by kind.
    """
    from serve_app.bench.http_bench import StreamSpec

    spec = StreamSpec(streams, prompt_chars, max_length)
    with _server(shared, url) as (server_url, meter):
        if live:
            shared.show(_live(shared, spec, server_url, meter))
        else:
            shared.show(_streams(shared, spec, server_url, meter, offline))


@contextmanager
def _server(shared: Shared, url: str | None) -> "Iterator[tuple[str, Meter]]":
    """The server at `url`, or one that runs for the block, with the meter of its processes."""
    from serve_app.bench.load.cpu_time import CpuMeter, no_meter
    from serve_app.bench.load.server_process import running_server

    if url is not None:
        yield url, no_meter
        return
    with running_server(shared.serve_flags) as server:
        yield server.url, CpuMeter(server.process.pid).read


def _streams(
    shared: Shared, spec: "StreamSpec", url: str, meter: "Meter", is_compared: bool
) -> "list[Section]":
    from serve_app.bench import http_bench

    with _offline_tok_s(shared, spec) if is_compared else nullcontext() as tok_s:
        random = Random(shared.seed)
        bursts, offline = asyncio.run(
            http_bench.compare_streams(url, spec, tok_s, shared.repeats, random, meter)
        )
    cpu = [http_bench.cpu_section({"demo": bursts})] if bursts[0].cpu_s else []
    return [http_bench.stream_section(bursts, offline, spec), *cpu]


def _live(shared: Shared, spec: "StreamSpec", url: str, meter: "Meter") -> "list[Section]":
    from serve_app.bench import http_bench, live_bench

    random = Random(shared.seed)
    bursts = asyncio.run(live_bench.compare_live(url, spec, shared.repeats, random, meter))
    cpu = [http_bench.cpu_section(bursts)] if bursts[live_bench.LIVE][0].cpu_s else []
    return [live_bench.live_section(bursts, spec), *cpu]


@contextmanager
def _offline_tok_s(shared: Shared, spec: "StreamSpec") -> "Iterator[Callable[[Burst], float]]":
    """Measures the engine of the flags, which is open for the length of the block."""
    from serve_app.bench.http_bench import engine_tok_s
    from serve_app.bench.launch import open_engine

    with open_engine(shared.spec()) as engine:
        yield partial(engine_tok_s, engine, shared.model, spec)
