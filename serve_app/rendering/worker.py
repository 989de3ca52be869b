"""The process that renders: `python -m serve_app.rendering.worker`, with messages on its pipes.

A text can be made to take any time and memory, also within one regular expression, so the ingress
kills a worker that is slow. The worker bounds its own memory, and ends with the ingress, however
that ends: at the end of its input, or by an alarm while it is busy.
"""

import os
import resource
import signal
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

from serve_app.rendering.frames import LENGTH_BYTES, READY, length, pack, unpack
from serve_app.rendering.markdown.blocks import cut
from serve_app.rendering.markdown.markup import Markup

MAX_MEMORY = 1024 * 1024 * 1024  # bytes of address space
MAX_HTML = 2 * 1024 * 1024  # characters of a block
STEP_S = 3.0  # more than an ingress waits


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever prints does not get between the messages
    markup = Markup()
    markup.html("*a* `b` $c$\n\n```python\nd = 1\n```\n")  # loads what is loaded late
    _write(sink, pack(READY))
    for text, is_whole, in_steps in _requests(source):
        for message in _answer(markup, text, is_whole, in_steps):
            _write(sink, message)


def _requests(source: BinaryIO) -> Iterator[Any]:
    while len(head := source.read(LENGTH_BYTES)) == LENGTH_BYTES:
        yield unpack(source.read(length(head)))


def _answer(markup: Markup, text: str, is_whole: bool, in_steps: bool) -> Iterator[bytes]:
    ends = _ends(markup, text, is_whole)
    htmls = _htmls(markup, text, ends if is_whole else [*ends, len(text)])
    if in_steps:
        yield pack(ends)
        yield from map(pack, htmls)
    else:
        yield pack(ends) + pack([*htmls])


def _htmls(markup: Markup, text: str, ends: list[int]) -> Iterator[str | None]:
    start = 0
    for end in ends:
        with _Alarm():
            html = _html(markup, text[start:end])
        yield html
        start = end


def _ends(markup: Markup, text: str, is_whole: bool) -> list[int]:
    try:
        with _Alarm():
            return cut(markup.parser, text, is_whole=is_whole)
    except Exception:
        return [len(text)] if is_whole else []


def _html(markup: Markup, text: str) -> str | None:
    try:
        html = markup.html(text)
    except Exception:  # a bug of any library is one block that is shown as text
        return None
    return html if len(html) <= MAX_HTML else None


class _Alarm:
    """Ends this process if the work within takes longer than STEP_S, even in C code."""

    def __enter__(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, STEP_S)

    def __exit__(self, *error: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _write(sink: Any, data: bytes) -> None:
    """All of it: a pipe takes what fits."""
    view = memoryview(data)
    while view:
        view = view[sink.write(view) :]


if __name__ == "__main__":
    main()
