"""`moss bench serve`: concurrent streams over HTTP, beside the engine alone."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import click

from serve_app.cli.bench.shared import Shared, shared_options
from serve_app.cli.options import with_options

if TYPE_CHECKING:
    from serve_app.bench.http_bench import Burst, StreamSpec

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
)


@click.command()
@shared_options
@with_options(*_OPTIONS)
def serve(
    shared: Shared, url: str | None, streams: int, prompt_chars: int, max_length: int, offline: bool
) -> None:
    """Measure many streams at once over HTTP, and the engine alone on the same prompts.

    For the comparison, --model and the other engine flags must be those of the server.
    """
    from serve_app.bench import http_bench
    from serve_app.bench.load.server_process import running_server

    spec = http_bench.StreamSpec(streams, prompt_chars, max_length)
    with ExitStack() as stack:
        server_url = url or stack.enter_context(running_server(shared.serve_flags))
        tok_s = stack.enter_context(_offline_tok_s(shared, spec)) if offline else None
        random = Random(shared.seed)
        results = asyncio.run(
            http_bench.compare_streams(server_url, spec, tok_s, shared.repeats, random)
        )
    shared.show([http_bench.stream_section(*results, spec)])


@contextmanager
def _offline_tok_s(shared: Shared, spec: "StreamSpec") -> "Iterator[Callable[[Burst], float]]":
    """Measures the engine of the flags, which is open for the length of the block."""
    from serve_app.bench.http_bench import engine_tok_s
    from serve_app.bench.launch import open_engine

    with open_engine(shared.spec()) as engine:
        yield partial(engine_tok_s, engine, shared.model, spec)
