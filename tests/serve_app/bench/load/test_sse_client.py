"""The client of `moss bench serve` on a real server that streams by hand."""

import asyncio
from collections.abc import AsyncIterator
from random import Random

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from serve_app.bench.http_bench import (
    StreamSpec,
    measure_http_chat,
    measure_streams,
    stream_section,
)
from serve_app.bench.load.sse_client import BenchError, SseClient, TokenCounts
from tests.support.http_server import serving


class Server:
    """Two pieces and an end a turn, ten output tokens; `ending` is the last event."""

    def __init__(self, ending: str = '{"uid": "u"}') -> None:
        self.bodies: list[dict[str, object]] = []
        self.running = self.most = 0
        self._ending = ending
        self.app = Starlette(
            routes=[Route("/", self._chat, methods=["POST"]), Route("/stats", self._stats)]
        )

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        if body["prompt"] == "no":
            return JSONResponse({"error": {"message": "not this"}}, 400)
        self.bodies.append(body)
        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def _events(self) -> AsyncIterator[str]:
        self.running += 1
        self.most = max(self.most, self.running)
        for event in ('{"delta": "a"}', '{"delta": "b"}', self._ending):
            await asyncio.sleep(0.02)
            if event:
                yield f"data: {event}\n\n"
        self.running -= 1

    async def _stats(self, request: Request) -> Response:
        turns = len(self.bodies)
        counts = TokenCounts(100 * turns, 40 * turns, 10 * turns)
        names = {"prompt_tokens": counts.prompt, "cached_tokens": counts.cached}
        return JSONResponse(names | {"output_tokens": counts.output})


async def test_streams_run_side_by_side_and_are_counted() -> None:
    server, spec = Server(), StreamSpec(num_streams=5, prompt_chars=7, max_length=99)
    async with serving(server.app) as url, SseClient(url) as client:
        burst = await measure_streams(client, spec, Random(0))
    assert server.most == 5
    assert burst.output_tokens == 50
    assert [len(turn.piece_times) for turn in burst.turns] == [3] * 5
    assert all(0.01 < turn.first_s < turn.piece_times[-1] for turn in burst.turns)
    assert len({str(body["prompt"]) for body in server.bodies}) == 5
    assert all(body["max_length"] == 99 and body["plugins"] == [] for body in server.bodies)
    (row,) = stream_section([burst], [burst.tok_s * 2], spec).rows
    assert (row["tokens_a_stream"], row["of_offline"]) == (10.0, 0.5)


async def test_a_chat_goes_on_under_its_uid() -> None:
    server = Server()
    async with serving(server.app) as url, SseClient(url) as client:
        turns = await measure_http_chat(client, 3, Random(0))
    assert [body.get("uid") for body in server.bodies] == [None, "u", "u"]
    assert [(turn.prompt_tokens, turn.cached_tokens) for turn in turns] == [(100, 40)] * 3


@pytest.mark.parametrize(
    ("ending", "told"),
    [('{"error": {"message": "a rank is gone"}}', "a rank is gone"), ("", "broke off")],
)
async def test_a_turn_that_fails_is_not_measured(ending: str, told: str) -> None:
    async with serving(Server(ending).app) as url, SseClient(url) as client:
        with pytest.raises(BenchError, match=told):
            await client.turn("hi")


async def test_a_refusal_is_told() -> None:
    async with serving(Server().app) as url, SseClient(url) as client:
        with pytest.raises(BenchError, match=r"400: .*not this"):
            await client.turn("no")


async def test_a_server_that_does_not_count() -> None:
    async def stats(request: Request) -> Response:
        return JSONResponse({"running": 0})

    app = Starlette(routes=[Route("/stats", stats)])
    async with serving(app) as url, SseClient(url) as client:
        with pytest.raises(BenchError, match="does not count tokens"):
            await client.counts()


async def test_nobody_there() -> None:
    async with SseClient("http://127.0.0.1:9") as client:
        with pytest.raises(BenchError, match=r"connection to http://127\.0\.0\.1:9 failed"):
            await client.turn("hi")
