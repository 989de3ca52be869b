"""`moss demo-eval`: measures the demo model on what its training data held out."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from serve_app.demo.bundled import BUNDLED_MODEL

if TYPE_CHECKING:
    from serve_app.demo.exam import Question
    from serve_app.demo.examiner import Examiner

MIN_ARITHMETIC, MIN_MEMORY = 0.98, 0.95


@click.command(name="demo-eval")
@click.option("--model", default=str(BUNDLED_MODEL), help="Directory or hub id; the bundled model.")
@click.option("--num-arithmetic", default=400, show_default=True, type=click.IntRange(1))
@click.option("--num-memory", default=100, show_default=True, type=click.IntRange(1))
@click.option("--num-lookups", default=100, show_default=True, type=click.IntRange(0))
@click.option("--seed", default=0, show_default=True)
@click.option("--greedy", is_flag=True, help="Temperature 0 instead of the service's defaults.")
@click.option("--plugins", default="calculator", show_default=True,
              help='Comma-separated plugins that are on; "" for none.')  # fmt: skip
@click.option("--dtype", default="float32", show_default=True)
@click.option("--kv-cache-dtype", help="int8; default: the same as --dtype.")
@click.option("--show-wrong", is_flag=True, help="Print each chat that went wrong.")
def command(
    model: str,
    num_arithmetic: int,
    num_memory: int,
    num_lookups: int,
    seed: int,
    greedy: bool,
    plugins: str,
    dtype: str,
    kv_cache_dtype: str | None,
    show_wrong: bool,
) -> None:
    """Ask held-out sums and chats that need memory; exit 1 below 98 % and 95 %.

    Also asks for searches and pictures, of which only the command counts. Sums, names, facts and
    phrasings are ones that `moss demo-data` never writes.
    """
    from moss_tp.sampling_params import SamplingParams
    from plugins_svc.registry import PLUGIN_NAMES
    from serve_app.demo.exam import arithmetic_questions, lookup_questions, memory_questions
    from serve_app.demo.examiner import Examiner

    params = SamplingParams(temperature=0.0 if greedy else 0.7, seed=None if greedy else seed)
    names = frozenset(filter(None, plugins.split(",")))
    if unknown := names - set(PLUGIN_NAMES):
        raise click.BadParameter(
            f"there is no {', '.join(sorted(unknown))}", param_hint="--plugins"
        )
    examiner = Examiner(model, params, names, dtype, kv_cache_dtype)
    sums = _grade(examiner, "arithmetic", arithmetic_questions(num_arithmetic, seed), show_wrong)
    recalls = _grade(examiner, "memory", memory_questions(num_memory, seed), show_wrong)
    if num_lookups:
        lookups = replace(examiner, enabled=frozenset(PLUGIN_NAMES))
        _grade(lookups, "lookups", lookup_questions(num_lookups, seed), show_wrong)
    sys.exit(0 if sums >= MIN_ARITHMETIC and recalls >= MIN_MEMORY else 1)


def _grade(
    examiner: "Examiner", name: str, questions: "Sequence[Question]", show_wrong: bool
) -> float:
    started = time.monotonic()
    marks = examiner.ask(questions)
    right, count = sum(mark.is_right for mark in marks), len(marks)
    seconds = time.monotonic() - started
    click.echo(f"{name}: {right} of {count} right ({right / count:.1%}) in {seconds:.0f} s")
    for mark in marks:
        if show_wrong and not mark.is_right:
            for turn in mark.exchanges:
                click.echo(f"  {turn.user} -> {turn.commands}{turn.results!r} -> {turn.reply}")
            click.echo(f"  expected {mark.question.expected}")
    return right / count


if __name__ == "__main__":
    command()
