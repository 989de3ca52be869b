"""Web search as a plugin: the setting that names its documents, and its block of numbered items.

The more searches a turn has, the fewer items each shows. An item is text that strangers wrote, so
it is shown as its repr, which stays on one line and cannot begin a new item.
"""

from pathlib import Path

from plugins_svc.sdk.arguments import cut_to
from plugins_svc.sdk.output import Item, PluginOutput
from plugins_svc.sdk.result_format import NO_RESULT, ResultFormat
from plugins_svc.sdk.spec import Plugin, PluginSettings, PluginSpec, Setting
from plugins_svc.web_search.plugin import MAX_ITEMS, WebSearch

MAX_ITEM_CHARS = 400
MAX_QUERY_CHARS = 1000


def items_per_search(num_searches: int) -> int:
    """How many items one search shows in a turn that makes `num_searches`: 3, 2, then 1."""
    return max(1, MAX_ITEMS + 1 - num_searches)


class ItemFormat(ResultFormat):
    """A line an item: `<|1|>: 'snippet'`."""

    def count_items(self, output: PluginOutput, num_calls: int) -> int:
        """See `items_per_search`."""
        return min(len(output.items), items_per_search(num_calls)) if output.ok else 0

    def value(self, output: PluginOutput, numbers: range) -> str:
        """The first items of the output, one a number."""
        shown = zip(numbers, output.items, strict=False)
        return "\n".join(f"<|{n}|>: {_one_line(item)}" for n, item in shown) or NO_RESULT


def _one_line(item: Item) -> str:
    return repr(item.snippet)[:MAX_ITEM_CHARS]


def _create(settings: PluginSettings) -> Plugin:
    return WebSearch(Path(settings[DOCUMENTS_DIR.name]))


DOCUMENTS_DIR = Setting(
    name="documents_dir",
    option="--documents",
    metavar="DIR",
    help="Directory of text, Markdown, HTML and PDF files for web search. Default: none.",
    reason="it searches documents",
    is_directory=True,
)
WEB_SEARCH = PluginSpec(
    name="web_search",
    call_name="Search",
    label="Web search",
    parameter="query",
    check_argument=cut_to(MAX_QUERY_CHARS),
    create=_create,
    result_format=ItemFormat(),
    settings=(DOCUMENTS_DIR,),
)
