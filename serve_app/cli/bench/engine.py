"""`moss bench engine`: decode and prefill, a mixed workload or memory, without HTTP."""

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import click

from moss_tp.engine_config import LOAD_FORMATS
from serve_app.cli.bench.shared import Shared, shared_options
from serve_app.cli.bench.values import Numbers
from serve_app.cli.options import with_options

if TYPE_CHECKING:
    from moss_tp.hardware.rates import GpuRates
    from serve_app.bench.engine_bench import TableSpec
    from serve_app.bench.hardware.machine import Machine
    from serve_app.bench.launch import EngineSpec
    from serve_app.bench.load.workload import MixedSpec

_TABLE_OPTIONS = (
    click.option("--batch", type=Numbers(), default="1,8,32", show_default=True),
    click.option("--prompt", type=click.IntRange(1), default=128, show_default=True),
    click.option("--new", type=click.IntRange(1), default=64, show_default=True),
    click.option("--prefill", type=Numbers(), default="128,512,1024", show_default=True),
    click.option("--compare", help="Engines to alternate, as tp RANKS x THREADS: tp1x2,tp2x1."),
)
_WEIGHT_OPTIONS = (
    click.option(
        "--load-format",
        type=click.Choice(LOAD_FORMATS),
        default="auto",
        show_default=True,
        help="dummy: random weights; of the model only config.json is needed.",
    ),
    click.option(
        "--cpu-offload-gb",
        type=click.FloatRange(0),
        default=0.0,
        help="GiB of each rank's weights that stay in host memory, with --device cuda.",
    ),
)
_WORKLOAD_OPTIONS = (
    click.option("--mixed", is_flag=True, help="A mixed workload instead of the tables."),
    click.option("--requests", type=click.IntRange(1), default=64, show_default=True),
    click.option(
        "--rate", type=click.FloatRange(0), default=0.0, help="Arrivals a second; 0: all at once."
    ),
    click.option("--prompts", type=Numbers("-", 2), default="16-512", show_default=True),
    click.option("--outputs", type=Numbers("-", 2), default="16-256", show_default=True),
    click.option("--soak", type=click.IntRange(2), help="Memory over so many requests, instead."),
)


@click.command()
@shared_options
@with_options(*_WEIGHT_OPTIONS, *_TABLE_OPTIONS, *_WORKLOAD_OPTIONS)
def engine(
    shared: Shared,
    compare: str | None,
    mixed: bool,
    soak: int | None,
    load_format: str,
    cpu_offload_gb: float,
    **lengths: Any,
) -> None:
    """Measure decode and prefill, a mixed workload (--mixed) or memory (--soak), offline.

    Prompts are random token ids, new each time; replies are greedy and have a fixed length.
    """
    from serve_app.bench.engine_bench import TableSpec
    from serve_app.bench.load.workload import MixedSpec

    weights = (("load_format", load_format), ("cpu_offload_gb", cpu_offload_gb))
    specs = replace(shared, settings=(*weights, *shared.settings)).specs(compare)
    if soak is not None:
        _soak(shared, specs[0], soak)
    elif mixed:
        names = ("requests", "prompts", "outputs", "rate")
        _mixed(shared, specs, MixedSpec(*(lengths[name] for name in names)))
    else:
        names = ("batch", "prompt", "new", "prefill")
        _tables(shared, specs, TableSpec(*(lengths[name] for name in names)))


def _tables(shared: Shared, specs: "list[EngineSpec]", tables: "TableSpec") -> None:
    from serve_app.bench.engine_bench import Limits, measure_tables, table_sections
    from serve_app.bench.launch import alternate

    machine, random, model = _machine(specs[0]), Random(shared.seed), specs[0].model_config
    runs = alternate(
        specs,
        shared.repeats,
        lambda engine: measure_tables(engine, tables, random, model.vocab_size),
    )
    limits = Limits(model, machine, specs[0].streamed_bytes)
    shared.show(table_sections(runs, tables, limits), machine)


def _machine(spec: "EngineSpec") -> "Machine | GpuRates":
    """Measured on as many threads as all ranks of the engine have together; on GPUs, on the first,
    times the number of ranks."""
    from serve_app.bench.hardware.machine import measure_machine, measure_rates
    from serve_app.bench.reporting.report import describe

    machine: Machine | GpuRates
    if spec.device == "cuda":
        machine = measure_rates(spec.dtype).times(spec.tp)
    else:
        machine = measure_machine(spec.tp * spec.threads, spec.dtype)
    click.echo(describe(machine))
    return machine


def _mixed(shared: Shared, specs: "list[EngineSpec]", mixed: "MixedSpec") -> None:
    from serve_app.bench.launch import alternate
    from serve_app.bench.mixed import measure_mixed, mixed_section

    random, vocab_size = Random(shared.seed), specs[0].model_config.vocab_size
    runs = alternate(
        specs,
        shared.repeats,
        lambda engine: measure_mixed(engine, mixed, shared.seed, random, vocab_size),
    )
    shared.show([mixed_section(runs, mixed)])


def _soak(shared: Shared, spec: "EngineSpec", num_requests: int) -> None:
    from serve_app.bench.launch import open_engine
    from serve_app.bench.soak import soak, soak_section

    with open_engine(spec) as engine:
        samples = soak(engine, num_requests, Random(shared.seed), spec.model_config.vocab_size)
    shared.show([soak_section(spec.name, samples)])
