"""The Results body, in which the model reads what its calls returned.

The form is that of MOSS's training data: one block a call, sorted by plugin, each in the format of
its plugin's spec. Plugins return text that strangers may have written, so every string passes
through the dialogue's neutraliser first; the caller brings it.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

from plugins_svc.protocol.calls import NO_CALLS, Call
from plugins_svc.registry import SPECS
from plugins_svc.sdk.output import PluginOutput

Outcome: TypeAlias = tuple[Call, PluginOutput]
Neutralise: TypeAlias = Callable[[str], str]


def format_results(outcomes: Sequence[Outcome], neutralise: Neutralise) -> str:
    """The body between `<|Results|>:` and `<eor>`, its own leading and trailing newline included.

    `neutralise` breaks up the dialogue's markers in each string that a plugin returned.
    """
    if not outcomes:
        return f"\n{NO_CALLS}\n"
    clean = [(call, output.map_text(neutralise)) for call, output in outcomes]
    special = _special_body(clean)
    return "\n".join(["", *_blocks(clean), ""]) if special is None else special


def format_value(call: Call, output: PluginOutput, neutralise: Neutralise) -> str:
    """What a turn with this one call would show for it, without the echo of the call."""
    (numbers,) = item_numbers([(call, output)])
    return call.spec.result_format.value(output.map_text(neutralise), numbers)


def block_order(calls: Sequence[Call]) -> list[int]:
    """Indices of the calls in the order of their blocks: by plugin, then as called."""
    return sorted(range(len(calls)), key=lambda index: SPECS.index(calls[index].spec))


def item_numbers(outcomes: Sequence[Outcome]) -> list[range]:
    """For each outcome, the numbers of its items in Results; they run from 1 over the turn."""
    num_calls = Counter(call.name for call, _ in outcomes)
    numbers = [range(0)] * len(outcomes)
    first = 1
    for index in block_order([call for call, _ in outcomes]):
        call, output = outcomes[index]
        num_shown = call.spec.result_format.count_items(output, num_calls[call.name])
        numbers[index] = range(first, first + num_shown)
        first += num_shown
    return numbers


def num_items(outcomes: Sequence[Outcome]) -> int:
    """How many numbered items `format_results` shows: those that a reply may cite."""
    return sum(map(len, item_numbers(outcomes)))


def _special_body(outcomes: Sequence[Outcome]) -> str | None:
    """The whole body in its plugin's own form, when all calls are of a plugin that has one."""
    first = outcomes[0][0]
    if any(call.name != first.name for call, _ in outcomes):
        return None
    return first.spec.result_format.body([output for _, output in outcomes])


def _blocks(outcomes: Sequence[Outcome]) -> list[str]:
    numbers = item_numbers(outcomes)
    return [
        call.spec.result_format.block(str(call), output, numbers[index])
        for index in block_order([call for call, _ in outcomes])
        for call, output in (outcomes[index],)
    ]
