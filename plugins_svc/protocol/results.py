"""What a plugin answered, and the Results body that tells it to the model.

The forms are those of MOSS's training data: one block a call, sorted by kind, each echoing its
call byte for byte. Search items are text that strangers wrote: each stays on one line (its repr)
and cannot spell a marker or an end token, so none can forge another item, segment or turn.
"""

from collections.abc import Callable, Sequence

from plugins_svc.protocol.calls import NO_CALLS, PLUGIN_OF_CALL, Call
from plugins_svc.sdk.output import Item, PluginOutput

NO_RESULT = "No result."
MAX_ITEMS = 3  # of one search
MAX_ITEM_CHARS = 400
_IMAGE_DONE = "Image generated successfully."
_KINDS = list(PLUGIN_OF_CALL)


def items_per_search(num_searches: int) -> int:
    """How many items one search shows in a turn that makes `num_searches`."""
    return max(1, MAX_ITEMS + 1 - num_searches)


def format_value(
    call: Call, output: PluginOutput, first_item: int = 1, max_items: int = MAX_ITEMS
) -> str:
    """What stands after `=>` in a call's block: `'125'`, or lines of roots or numbered items."""
    has_values = output.ok and bool(output.items if call.name == "Search" else output.lines)
    if call.name == "Calculate":
        return f"'{output.lines[0] if has_values else NO_RESULT}'"
    if not has_values:
        return NO_RESULT
    if call.name == "Text2Image":
        return _IMAGE_DONE
    if call.name == "Solve":
        return "\n".join(output.lines)
    items = enumerate(_shown(output, max_items), first_item)
    return "\n".join(f"<|{number}|>: {_item(item)}" for number, item in items)


def format_results(
    outcomes: Sequence[tuple[Call, PluginOutput]], neutralise: Callable[[str], str]
) -> str:
    """The body between `<|Results|>:` and `<eor>`, its own leading and trailing newline included.

    Items are numbered from 1 over all of the turn's searches. `neutralise` breaks up the markers
    of the dialogue in each text that a plugin returned.
    """
    outcomes = [(call, output.map_text(neutralise)) for call, output in outcomes]
    if not outcomes:
        return f"\n{NO_CALLS}\n"
    if all(call.name == "Text2Image" and output.ok for call, output in outcomes):
        return f" {_IMAGE_DONE}"
    max_items = _max_items(outcomes)
    blocks: list[str] = []
    first_item = 1
    for call, output in sorted(outcomes, key=lambda outcome: _KINDS.index(outcome[0].name)):
        blocks.append(_block(call, format_value(call, output, first_item, max_items)))
        if call.name == "Search":
            first_item += len(_shown(output, max_items))
    return "\n" + "\n".join(blocks) + "\n"


def num_items(outcomes: Sequence[tuple[Call, PluginOutput]]) -> int:
    """How many numbered items `format_results` shows: those that a reply may cite."""
    max_items = _max_items(outcomes)
    return sum(len(_shown(o, max_items)) for call, o in outcomes if call.name == "Search")


def _max_items(outcomes: Sequence[tuple[Call, PluginOutput]]) -> int:
    return items_per_search(sum(call.name == "Search" for call, _ in outcomes))


def _shown(output: PluginOutput, max_items: int) -> tuple[Item, ...]:
    return output.items[:max_items] if output.ok else ()


def _block(call: Call, value: str) -> str:
    if value == _IMAGE_DONE:
        return value
    return f"{call} =>{' ' if call.name == 'Calculate' else chr(10)}{value}"


def _item(item: Item) -> str:
    return repr(item.snippet)[:MAX_ITEM_CHARS]
