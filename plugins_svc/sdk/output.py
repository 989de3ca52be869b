"""What a plugin answers: lines of text, or search items, or no result.

The bottom of the package: every plugin returns this type and the Results formatter reads it. It
does not know how an answer is shown to the model.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """One search hit. `url` is empty when the document has no address."""

    title: str
    url: str
    snippet: str


@dataclass(frozen=True)
class PluginOutput:
    """A plugin's answer: `lines` (the number, the roots as `x = 1`) or `items` (search hits).

    Every failure has the same form, `no_result()`.
    """

    ok: bool
    lines: tuple[str, ...] = ()
    items: tuple[Item, ...] = ()

    @classmethod
    def no_result(cls) -> "PluginOutput":
        """The output for refused, empty, timed out and broken calls."""
        return cls(False)

    def map_text(self, change: Callable[[str], str]) -> "PluginOutput":
        """The same output with `change` applied to every string in it."""
        items = (Item(change(i.title), change(i.url), change(i.snippet)) for i in self.items)
        return PluginOutput(self.ok, tuple(map(change, self.lines)), tuple(items))


def check_output(answer: object) -> PluginOutput:
    """`answer` as it is, if it is a well-formed output; TypeError otherwise.

    Callers check what a plugin in another process sent before they format it.
    """
    if not (
        isinstance(answer, PluginOutput)
        and isinstance(answer.ok, bool)
        and _is_tuple_of(answer.lines, str)
        and _is_tuple_of(answer.items, Item)
        and all(_is_tuple_of((i.title, i.url, i.snippet), str) for i in answer.items)
        and all(map(_is_text, _strings(answer)))
    ):
        raise TypeError(f"a plugin answered with a malformed {type(answer).__name__}")
    return answer


def _strings(output: PluginOutput) -> list[str]:
    return [*output.lines, *(text for i in output.items for text in (i.title, i.url, i.snippet))]


def _is_text(text: str) -> bool:
    """Half of a surrogate pair is no character: nobody could store or send it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_tuple_of(values: object, kind: type) -> bool:
    return isinstance(values, tuple) and all(isinstance(value, kind) for value in values)
