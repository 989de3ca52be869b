"""Rendering in a worker process, with what readers get where that fails, and a cache."""

from collections.abc import Sequence

from serve_app.rendering.cache import BlockCache
from serve_app.rendering.escaped import escaped
from serve_app.rendering.renderer import Rendered, plain
from serve_app.rendering.supervised import Answer, Supervisor

MAX_CHARS = 64 * 1024  # of the text that a worker gets at once, so of a block
MAX_FAILURES = 1
FAILED_FOR_S = 60.0  # a text that could not be rendered is not tried again so soon


class IsolatedRenderer:
    """Satisfies Renderer."""

    def __init__(self, worker: Supervisor | None = None, cache: BlockCache | None = None) -> None:
        self._worker = worker or Supervisor()
        self._cache = cache or BlockCache()

    def open(self) -> None:
        self._worker.open()

    async def render(self, text: str, *, is_whole: bool) -> Rendered:
        if is_whole and (known := self._cache.get(text)) is not None:
            return Rendered(known, len(text))
        rendered = await _Rendering(self._worker, text, is_whole).run()
        if is_whole:
            for_s = float("inf") if rendered.is_good else FAILED_FOR_S
            self._cache.put(text, rendered.blocks, for_s)
        return rendered

    def remember(self, text: str, blocks: Sequence[str]) -> None:
        self._cache.put(text, tuple(blocks))

    async def close(self) -> None:
        await self._worker.close()


class _Rendering:
    """One text, in as many requests to the worker as it takes."""

    def __init__(self, worker: Supervisor, text: str, is_whole: bool) -> None:
        self._worker, self._text, self._is_whole = worker, text, is_whole
        self._blocks: list[str] = []
        self._start = 0
        self._num_failures = 0
        self._is_good = True

    async def run(self) -> Rendered:
        while self._text[self._start :].strip():
            end = self._start + MAX_CHARS
            is_last = end >= len(self._text)
            part, start = self._text[self._start : end], self._start
            is_whole = self._is_whole and is_last
            answer = await self._worker.ask(part, is_whole, in_steps=self._is_whole)
            self._take(answer)
            if answer.failure:
                if not self._goes_on_after(answer, start):
                    return self._as_text()
            elif is_last and not self._is_whole:
                return self._with_tail(answer)
            elif self._start == start:  # one block that is too large
                return self._as_text()
        return Rendered(tuple(self._blocks), len(self._text), "", self._is_good)

    def _take(self, answer: Answer) -> None:
        start = self._start
        for end, html in zip(answer.ends, answer.htmls, strict=False):
            self._add(start + end, html)

    def _add(self, end: int, html: str | None) -> None:
        self._blocks.append(escaped(self._text[self._start : end]) if html is None else html)
        self._start = end

    def _goes_on_after(self, answer: Answer, start: int) -> bool:
        """Whether to try again: behind the block that is too slow, or with another worker."""
        self._num_failures += 1
        if self._num_failures > MAX_FAILURES:
            return False
        if answer.failure == "slow":
            self._is_good = False
            if not self._is_whole or len(answer.htmls) >= len(answer.ends):
                return False
            self._add(start + answer.ends[len(answer.htmls)], None)
        return True

    def _with_tail(self, answer: Answer) -> Rendered:
        text, tail = self._text[self._start :], answer.htmls[-1]
        if tail is None:
            tail = escaped(text)
        shown = tail if text.strip() else ""
        return Rendered(tuple(self._blocks), self._start, shown, self._is_good)

    def _as_text(self) -> Rendered:
        return plain(self._text, is_whole=self._is_whole, blocks=self._blocks, start=self._start)
