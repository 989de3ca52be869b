"""`moss bench`: how fast the engine, the server and a long chat are on this machine.

It turns flags into specs and sections into output; what is measured, and how, is
`serve_app.bench`'s.
"""

import asyncio
import re
from contextlib import ExitStack
from random import Random
from typing import TYPE_CHECKING, Any

import click

from serve_app.cli.bench.options import Numbers, Shared, shared_options

if TYPE_CHECKING:
    from serve_app.bench.hardware.machine import Machine
    from serve_app.bench.launch import EngineSpec
    from serve_app.bench.reporting.figures import Section

VARIANT = re.compile(r"tp([1-9]\d*)x([1-9]\d*)")


@click.group()
def command() -> None:
    """Measure the engine, the server and long chats on this machine."""


@command.command()
@shared_options
@click.option("--batch", type=Numbers(), default="1,8,32", show_default=True)
@click.option("--prompt", type=click.IntRange(1), default=128, show_default=True)
@click.option("--new", type=click.IntRange(1), default=64, show_default=True)
@click.option("--prefill", type=Numbers(), default="128,512,1024", show_default=True)
@click.option("--compare", help="Ranks x threads of each, in turns: tp1x2,tp2x1.")
@click.option("--mixed", is_flag=True, help="A mixed workload instead of the tables.")
@click.option("--requests", type=click.IntRange(1), default=64, show_default=True)
@click.option(
    "--rate", type=click.FloatRange(0), default=0.0, help="Arrivals a second; 0: at once."
)
@click.option("--prompts", type=Numbers("-", 2), default="16-512", show_default=True)
@click.option("--outputs", type=Numbers("-", 2), default="16-256", show_default=True)
@click.option("--soak", type=click.IntRange(2), help="Memory over so many requests, instead.")
def engine(
    batch: tuple[int, ...],
    prompt: int,
    new: int,
    prefill: tuple[int, ...],
    compare: str | None,
    mixed: bool,
    requests: int,
    rate: float,
    prompts: tuple[int, int],
    outputs: tuple[int, int],
    soak: int | None,
    **flags: Any,
) -> None:
    """Measure decode and prefill, a mixed workload (--mixed) or memory (--soak), offline.

    Prompts are random ids, new each time; replies are greedy and do not end by themselves.
    """
    from serve_app.bench.engine_bench import TableSpec
    from serve_app.bench.load.workload import MixedSpec

    shared = Shared(**flags)
    shared.check()
    specs = _variants(shared, compare)
    if soak is not None:
        shared.show([_soak(shared, specs[0], soak)])
    elif mixed:
        shared.show([_mixed(shared, specs, MixedSpec(requests, prompts, outputs, rate))])
    else:
        machine = _machine(specs[0])
        shared.show(
            _tables(shared, specs, TableSpec(batch, prompt, new, prefill), machine), machine
        )


@command.command()
@shared_options
@click.option("--url", help="A running server. Default: one is started with these flags.")
@click.option("--streams", type=click.IntRange(1), default=32, show_default=True)
@click.option("--prompt-chars", type=click.IntRange(1), default=128, show_default=True)
@click.option("--max-length", type=click.IntRange(1), default=512, show_default=True,
              help="Of prompt and reply, as in the API.")  # fmt: skip
@click.option("--offline/--no-offline", default=True, help="Also the engine alone, in turns.")
def serve(
    url: str | None,
    streams: int,
    prompt_chars: int,
    max_length: int,
    offline: bool,
    **flags: Any,
) -> None:
    """Measure many streams at once over HTTP, and the engine alone on the same prompts.

    For the comparison, --model and the other engine flags have to be those of the server.
    """
    from serve_app.bench.http_bench import StreamSpec, compare_streams, stream_section
    from serve_app.bench.launch import open_engine
    from serve_app.bench.load.server_process import served

    shared = Shared(**flags)
    shared.check()
    spec = StreamSpec(streams, prompt_chars, max_length)
    with ExitStack() as stack:
        where = url or stack.enter_context(served(_serve_flags(shared)))
        alone = stack.enter_context(open_engine(shared.spec())) if offline else None
        found = asyncio.run(
            compare_streams(where, spec, alone, shared.model, shared.repeats, Random(shared.seed))
        )
    shared.show([stream_section(*found, spec)])


@command.command()
@shared_options
@click.option("--turns", type=click.IntRange(2), default=20, show_default=True)
@click.option("--user", type=click.IntRange(1), default=32, show_default=True, help="Tokens.")
@click.option("--reply", type=click.IntRange(1), default=32, show_default=True, help="Tokens.")
@click.option("--http", is_flag=True, help="Over HTTP, on a server started for it.")
@click.option("--url", help="Over HTTP, on a running server.")
def chat(turns: int, user: int, reply: int, http: bool, url: str | None, **flags: Any) -> None:
    """Measure a long chat: time to first token turn by turn, and what comes from cache.

    Offline it is random ids of fixed lengths. Over HTTP it is a chat of sums by uid, for a model
    that ends its replies; the time to its first piece holds the first pass.
    """
    from serve_app.bench.chat_bench import ChatSpec, chat_sections, measure_chat
    from serve_app.bench.launch import alternate
    from serve_app.bench.load.server_process import served

    shared = Shared(**flags)
    shared.check()
    if http or url:
        with ExitStack() as stack:
            where = url or stack.enter_context(served(_serve_flags(shared)))
            chats = {"over HTTP": asyncio.run(_http_chats(shared, where, turns))}
        title = "chat over HTTP by uid (history: the whole prompts of both passes)"
    else:
        spec, engine_spec, random = ChatSpec(turns, user, reply), shared.spec(), Random(shared.seed)
        vocab = engine_spec.shape.vocab_size
        chats = alternate(
            [engine_spec], shared.repeats, lambda engine: measure_chat(engine, spec, random, vocab)
        )
        title = f"chat: messages of {user} tokens, replies of {reply}"
    shared.show(chat_sections(chats, title))


@command.command()
@click.option("--tp", type=click.IntRange(2), default=2, show_default=True, help="Ranks.")
@click.option("--bytes", "num_bytes", type=Numbers(), default="8192,1048576", show_default=True)
@click.option("--pauses", type=Numbers(), default="1,10", show_default=True, help="ms.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=200, show_default=True)
def collectives(
    tp: int, num_bytes: tuple[int, ...], pauses: tuple[int, ...], repeats: int, rounds: int
) -> None:
    """Measure what ranks on this machine pay for meeting, by shared memory and over gloo."""
    from serve_app.bench.collectives import (
        CollectivesSpec,
        collectives_sections,
        measure_collectives,
    )
    from serve_app.bench.reporting.report import as_text

    found = measure_collectives(CollectivesSpec(tp, num_bytes, (0, *pauses), rounds), repeats)
    for section in collectives_sections(found, tp):
        click.echo(f"\n{as_text(section)}")


def _variants(shared: Shared, compare: str | None) -> "list[EngineSpec]":
    """The engines to measure, in turns."""
    if compare is None:
        return [shared.spec()]
    found = [VARIANT.fullmatch(name) for name in compare.split(",")]
    if not all(found):
        raise click.BadParameter(f"{compare!r} is not like tp1x2,tp2x1", param_hint="--compare")
    return [shared.spec(int(match[1]), int(match[2])) for match in found if match]


def _machine(spec: "EngineSpec") -> "Machine":
    """Measured on as many threads as the engine has over all its ranks."""
    from serve_app.bench.hardware.machine import measure_machine
    from serve_app.bench.reporting.report import describe

    machine = measure_machine(spec.tp * spec.threads, spec.dtype)
    click.echo(describe(machine))
    return machine


def _tables(
    shared: Shared, specs: "list[EngineSpec]", tables: Any, machine: "Machine"
) -> "list[Section]":
    from serve_app.bench.engine_bench import measure_tables, table_sections
    from serve_app.bench.launch import alternate

    random, shape = Random(shared.seed), specs[0].shape
    runs = alternate(
        specs,
        shared.repeats,
        lambda engine: measure_tables(engine, tables, random, shape.vocab_size),
    )
    return table_sections(runs, tables, shape, machine)


def _mixed(shared: Shared, specs: "list[EngineSpec]", mixed: Any) -> "Section":
    from serve_app.bench.launch import alternate
    from serve_app.bench.mixed import measure_mixed, mixed_section

    random, vocab = Random(shared.seed), specs[0].shape.vocab_size
    runs = alternate(
        specs,
        shared.repeats,
        lambda engine: measure_mixed(engine, mixed, shared.seed, random, vocab),
    )
    return mixed_section(runs, mixed)


def _soak(shared: Shared, spec: "EngineSpec", num_requests: int) -> "Section":
    from serve_app.bench.launch import open_engine
    from serve_app.bench.soak import soak, soak_section

    with open_engine(spec) as engine:
        samples = soak(engine, num_requests, Random(shared.seed), spec.shape.vocab_size)
    return soak_section(spec.name, samples)


def _serve_flags(shared: Shared) -> list[str]:
    """Of `moss serve`."""
    return ["--model", shared.model, "--tp", str(shared.tp), "--dtype", shared.dtype]


async def _http_chats(shared: Shared, url: str, turns: int) -> "list[list[Any]]":
    from serve_app.bench.http_bench import measure_http_chat
    from serve_app.bench.load.sse_client import SseClient

    random = Random(shared.seed)
    async with SseClient(url) as client:
        return [await measure_http_chat(client, turns, random) for _ in range(shared.repeats)]
