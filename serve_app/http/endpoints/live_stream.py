"""Live events as server-sent events, and beside them the reply's blocks as HTML where asked."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from starlette.types import Send

from serve_app.api.turns import event_data
from serve_app.http.exchange import EventStream
from serve_app.http.service import HttpService
from serve_app.live.event import LiveEvent
from serve_app.rendering.live import LiveBlocks


class LiveStream(EventStream):
    """Live events as server-sent events. Who was cut off comes back with the last id."""

    def __init__(self, events: AsyncGenerator[LiveEvent], service: HttpService) -> None:
        super().__init__(events, service.ping_s, service.drain, is_reader=True)

    def encode(self, event: LiveEvent | dict[str, Any]) -> str:
        if not isinstance(event, LiveEvent):  # an error that is none of the turn's events
            return f"event: error\ndata: {json.dumps(event, ensure_ascii=False)}\n\n"
        data = json.dumps(event_data(event.kind, event.data), ensure_ascii=False)
        return f"id: {event.number}\nevent: {event.kind}\ndata: {data}\n\n"


class RenderedStream(LiveStream):
    """Needs all events of a turn, and sends those after number `after`.

    Events never wait for blocks, but `done` does, for a second at most.
    """

    def __init__(
        self, events: AsyncGenerator[LiveEvent], service: HttpService, after: int = -1
    ) -> None:
        super().__init__(events, service)
        self._renderer = service.renderer
        self._after = after

    async def _send_all(self, send: Send) -> None:
        async def send_blocks(changed: Sequence[tuple[int, str]]) -> None:
            await self._send_text(send, "".join(map(_block_event, changed)))

        blocks = LiveBlocks(self._renderer, send_blocks)
        try:
            async with aclosing(self._events) as events:
                async for event in events:
                    if event is not None:
                        await _note(blocks, event)
                    if event is None or event.number > self._after:
                        await self._send_event(send, event)
        finally:
            await blocks.close()


def _block_event(block: tuple[int, str]) -> str:
    """Without a number: who comes back gets all blocks anew."""
    data = json.dumps({"block": block[0], "html": block[1]}, ensure_ascii=False)
    return f"event: html\ndata: {data}\n\n"


async def _note(blocks: LiveBlocks, event: LiveEvent) -> None:
    match event.kind:
        case "delta":
            blocks.add(event.telling.text)
        case "reset":
            blocks.reset()
        case "done":
            await blocks.finish()
        case "error":
            await blocks.close()  # nothing comes after the end
