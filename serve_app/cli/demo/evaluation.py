"""`moss demo-eval`: examines the demo model on what its training data held out."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from moss_tp.errors import ConfigError
from plugins_svc.registry import PLUGIN_NAMES
from serve_app.cli.options import with_options
from serve_app.demo.bundled import BUNDLED_MODEL
from serve_app.settings import check_plugin_names

if TYPE_CHECKING:
    from serve_app.demo.exam import Question
    from serve_app.demo.examiner import Examiner, Mark

MIN_ARITHMETIC, MIN_MEMORY = 0.98, 0.95


class Plugins(click.ParamType[frozenset[str]]):
    """Comma-separated plugin names; empty for none."""

    name = "text"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> frozenset[str]:
        if isinstance(value, frozenset):
            return value
        names = frozenset(filter(None, str(value).split(",")))
        try:
            check_plugin_names(names, PLUGIN_NAMES)
        except ConfigError as error:
            self.fail(str(error), param, ctx)
        return names


_OPTIONS = (
    click.option(
        "--model", default=str(BUNDLED_MODEL), help="Directory or hub id; the bundled model."
    ),
    click.option("--num-arithmetic", default=400, show_default=True, type=click.IntRange(1)),
    click.option("--num-memory", default=100, show_default=True, type=click.IntRange(1)),
    click.option("--num-lookups", default=100, show_default=True, type=click.IntRange(0)),
    click.option("--seed", default=0, show_default=True),
    click.option("--greedy", is_flag=True, help="Temperature 0 instead of the service's defaults."),
    click.option(
        "--plugins",
        type=Plugins(),
        default="calculator",
        show_default=True,
        help='Comma-separated plugins that are on; "" for none.',
    ),
    click.option("--dtype", default="float32", show_default=True),
    click.option("--kv-cache-dtype", help="int8; default: the same as --dtype."),
    click.option("--show-wrong", is_flag=True, help="Print each chat that went wrong."),
)


@click.command(name="demo-eval")
@with_options(*_OPTIONS)
def command(
    num_arithmetic: int,
    num_memory: int,
    num_lookups: int,
    seed: int,
    show_wrong: bool,
    **engine: Any,
) -> None:
    """Ask held-out sums and chats that need memory; exit 1 below 98 % and 95 %.

    Also asks for searches and pictures, for which only the command counts. The sums, names, facts
    and phrasings are ones that `moss demo-data` never writes.
    """
    from serve_app.demo.exam import arithmetic_questions, lookup_questions, memory_questions

    examiner = _examiner(seed=seed, **engine)
    sums = _grade(examiner, "arithmetic", arithmetic_questions(num_arithmetic, seed), show_wrong)
    facts = _grade(examiner, "memory", memory_questions(num_memory, seed), show_wrong)
    if num_lookups:
        lookups = replace(examiner, enabled=frozenset(PLUGIN_NAMES))
        _grade(lookups, "lookups", lookup_questions(num_lookups, seed), show_wrong)
    sys.exit(0 if sums >= MIN_ARITHMETIC and facts >= MIN_MEMORY else 1)


def _examiner(
    *,
    model: str,
    seed: int,
    greedy: bool,
    plugins: frozenset[str],
    dtype: str,
    kv_cache_dtype: str | None,
) -> "Examiner":
    from moss_tp.sampling_params import SamplingParams
    from serve_app.demo.examiner import Examiner

    params = SamplingParams(temperature=0.0 if greedy else 0.7, seed=None if greedy else seed)
    return Examiner(model, params, plugins, dtype, kv_cache_dtype)


def _grade(
    examiner: "Examiner", name: str, questions: "Sequence[Question]", show_wrong: bool
) -> float:
    """Asks the questions and prints the score; returns the share of right answers."""
    started = time.monotonic()
    marks = examiner.ask(questions)
    right, count = sum(mark.is_right for mark in marks), len(marks)
    seconds = time.monotonic() - started
    click.echo(f"{name}: {right} of {count} right ({right / count:.1%}) in {seconds:.0f} s")
    if show_wrong:
        _show_wrong(marks)
    return right / count


def _show_wrong(marks: "Sequence[Mark]") -> None:
    for mark in marks:
        if not mark.is_right:
            for turn in mark.exchanges:
                click.echo(f"  {turn.user} -> {turn.commands}{turn.results!r} -> {turn.reply}")
            click.echo(f"  expected {mark.question.expected}")


if __name__ == "__main__":
    command()
