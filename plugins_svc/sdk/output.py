"""What a plugin answers: lines of text, search items, pictures, or no result.

The bottom of the package: every plugin returns this type and the Results formatter reads it. It
does not know how an answer is shown to the model.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from plugins_svc.sdk.picture import MAX_PICTURES, Picture, StoredPicture, is_picture


@dataclass(frozen=True)
class Item:
    """One search hit. `url` is empty when the document has no address."""

    title: str
    url: str
    snippet: str


@dataclass(frozen=True)
class PluginOutput:
    """A plugin's answer: `lines` (the number, the roots as `x = 1`), `items` (search hits) or
    `images`, of which a server keeps the files and passes on only what stands for them.

    Every failure has the same form, `no_result()`.
    """

    ok: bool
    lines: tuple[str, ...] = ()
    items: tuple[Item, ...] = ()
    images: tuple[Picture | StoredPicture, ...] = ()

    @classmethod
    def no_result(cls) -> "PluginOutput":
        """The output for refused, empty, timed out and broken calls."""
        return cls(False)

    def map_text(self, change: Callable[[str], str]) -> "PluginOutput":
        """The same output with `change` applied to every string in it."""
        items = (Item(change(i.title), change(i.url), change(i.snippet)) for i in self.items)
        return replace(self, lines=tuple(map(change, self.lines)), items=tuple(items))


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
        and _are_pictures(answer.images)
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


def _are_pictures(images: object) -> bool:
    return (
        isinstance(images, tuple)
        and len(images) <= MAX_PICTURES
        and all(is_picture(image) for image in images)
    )


def _is_tuple_of(values: object, kind: type) -> bool:
    return isinstance(values, tuple) and all(isinstance(value, kind) for value in values)
