"""Citations in a reply, `<sup><|n|></sup>` for item n of the turn's searches, and their sources."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_CITATION = re.compile(r"<sup><\|([0-9]{1,9})\|></sup>")


def cited(text: str, form: str) -> str:
    """`text` with each citation as `form`, where `{}` is its number."""
    return _CITATION.sub(lambda citation: form.format(citation[1]), text)


def source_lines(reply: str, items: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each of the searches' `items` that `reply` cites."""
    numbers = {int(number) for number in _CITATION.findall(reply)}
    for item in items:
        if item.get("n") in numbers:
            yield " ".join(f"[{item['n']}] {item.get('title', '')} {item.get('url', '')}".split())
