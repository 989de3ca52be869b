"""The blocks of one reply while it grows, sent as they are made, beside the stream of its text."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from serve_app.rendering.renderer import Rendered, Renderer, plain

# So that rendering stays under 5 % of an ingress's work for a turn, also at 25 tokens a second.
INTERVAL_S = 0.35
FINAL_S = 1.0
_SHARE = 4  # pauses are this many times longer than rendering takes, so that many can share it
_MAX_PAUSE_S = 2.0
_CHARS_PER_S = 400_000  # of HTML that is sent again and again

Send = Callable[[Sequence[tuple[int, str]]], Awaitable[None]]


class LiveBlocks:
    """`send` gets the blocks of the text that is added, by number, again when they have changed.

    Use `finish` for the rest, or `close` to drop it. A text that was too slow once is shown as
    text from there on.
    """

    def __init__(self, renderer: Renderer, send: Send, interval_s: float = INTERVAL_S) -> None:
        self._renderer, self._send, self._interval_s = renderer, send, interval_s
        self._changed, self._ending = asyncio.Event(), asyncio.Event()
        self._timer: asyncio.Timeout | None = None
        self._ends_at: float | None = None  # in the loop's time
        self._epoch = 0
        self.reset()
        renderer.open()
        self._task = asyncio.create_task(self._run())

    def add(self, text: str) -> None:
        self._new.append(text)
        self._changed.set()

    def reset(self) -> None:
        """The reply begins again."""
        self._epoch += 1
        self._text, self._new = "", list[str]()
        self._start = 0  # of the text that is not closed yet
        self._blocks, self._tail = list[str](), ""
        self._is_good = True

    async def finish(self, within_s: float = FINAL_S) -> None:
        """Sends the blocks of the whole text, as escaped text if rendering takes too long."""
        self._ends_at = asyncio.get_running_loop().time() + within_s
        if self._timer is not None:
            self._timer.reschedule(self._ends_at)
        self._ending.set()
        self._changed.set()
        await self._task

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while not self._ending.is_set():
            await self._changed.wait()
            self._changed.clear()
            if not self._ending.is_set():
                await self._pause(await self._step(is_whole=False))
        await self._step(is_whole=True)
        if self._is_good:
            self._renderer.remember(self._text, self._blocks)

    async def _pause(self, render_s: float) -> None:
        sending_s = len(self._tail) / _CHARS_PER_S
        pause_s = min(max(self._interval_s, _SHARE * render_s, sending_s), _MAX_PAUSE_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._ending.wait()

    async def _step(self, *, is_whole: bool) -> float:
        """Renders what is open, and sends what has changed; the seconds that rendering took."""
        self._text += "".join(self._new)
        self._new = []
        began, epoch, text = time.monotonic(), self._epoch, self._text[self._start :]
        rendered = await self._rendered(text, is_whole)
        render_s = time.monotonic() - began
        if epoch == self._epoch and (shown := self._take(rendered)):
            await self._send(shown)
        return render_s

    async def _rendered(self, text: str, is_whole: bool) -> Rendered:
        if not self._is_good:
            return plain(text, is_whole=is_whole)
        try:
            async with asyncio.timeout_at(self._ends_at) as self._timer:
                return await self._renderer.render(text, is_whole=is_whole)
        except TimeoutError:
            return plain(text, is_whole=is_whole)
        finally:
            self._timer = None

    def _take(self, rendered: Rendered) -> list[tuple[int, str]]:
        """What readers do not have yet."""
        first, made = len(self._blocks), [*rendered.blocks]
        shown = [*made, *([rendered.tail] if rendered.tail else [])]
        is_known = bool(shown) and shown[0] == self._tail
        self._blocks += made
        self._start += rendered.consumed
        self._is_good = self._is_good and rendered.is_good
        self._tail = rendered.tail
        return [*enumerate(shown, first)][is_known:]
