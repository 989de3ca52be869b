"""The HTTP client of `moss bench` against a real server with scripted streams."""

import asyncio
from collections.abc import AsyncIterator
from random import Random

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from serve_app.bench.chat_bench import measure_http_chat
from serve_app.bench.http_bench import (
    Burst,
    StreamSpec,
    compare_streams,
    cpu_section,
    measure_streams,
    stream_section,
)
from serve_app.bench.live_bench import LIVE, STATELESS, compare_live, live_section
from serve_app.bench.load.errors import BenchError
from serve_app.bench.load.sse_client import SseClient, StreamedTurn, TokenCounts
from tests.support.http_server import serving

USAGE = '{"completion_tokens": 10}'


class Server:
    """Every turn is two deltas, then `ending`, and counts as ten output tokens."""

    def __init__(self, ending: str = '{"uid": "u"}') -> None:
        self.bodies: list[dict[str, object]] = []
        self.running = self.max_running = self.num_sessions = 0
        self._ending = ending
        self.app = Starlette(
            routes=[
                Route("/", self._chat, methods=["POST"]),
                Route("/v1/chat/completions", self._openai, methods=["POST"]),
                Route("/v1/sessions", self._session, methods=["POST"]),
                Route("/v1/sessions/{uid}/turns", self._live, methods=["POST"]),
                Route("/stats", self._stats),
            ]
        )

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        if body["prompt"] == "no":
            return JSONResponse({"error": {"message": "not this"}}, 400)
        self.bodies.append(body)
        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def _events(self) -> AsyncIterator[str]:
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        for event in ('{"delta": "a"}', '{"delta": "b"}', self._ending):
            await asyncio.sleep(0.02)
            if event:
                yield f"data: {event}\n\n"
        self.running -= 1

    async def _session(self, request: Request) -> Response:
        self.num_sessions += 1
        return JSONResponse({"id": f"u{self.num_sessions}"})

    async def _openai(self, request: Request) -> Response:
        self.bodies.append(await request.json() | {"api": STATELESS})
        content, usage = '{"choices": [{}], "usage": null}', f'{{"usage": {USAGE}}}'
        text = "".join(f"data: {data}\n\n" for data in (content, usage, "[DONE]"))
        return Response(text, media_type="text/event-stream")

    async def _live(self, request: Request) -> Response:
        self.bodies.append(await request.json() | {"api": LIVE, **request.path_params})
        events = {"turn": '{"uid": "u"}', "delta": '{"text": "a"}', "done": f'{{"usage": {USAGE}}}'}
        text = "".join(f"event: {kind}\ndata: {data}\n\n" for kind, data in events.items())
        return Response(text, media_type="text/event-stream")

    async def _stats(self, request: Request) -> Response:
        turns = len(self.bodies)
        counts = TokenCounts(100 * turns, 40 * turns, 10 * turns)
        names = {"prompt_tokens": counts.prompt, "cached_tokens": counts.cached}
        return JSONResponse(names | {"output_tokens": counts.output})


async def test_streams_run_concurrently_and_their_tokens_are_counted() -> None:
    server, spec = Server(), StreamSpec(num_streams=5, prompt_chars=7, max_length=99)
    async with serving(server.app) as url, SseClient(url) as client:
        burst = await measure_streams(client, spec, Random(0))
    assert server.max_running == 5
    assert burst.output_tokens == 50
    assert [len(turn.piece_times) for turn in burst.turns] == [3] * 5
    assert all(0.01 < turn.first_s < turn.piece_times[-1] for turn in burst.turns)
    assert len({str(body["prompt"]) for body in server.bodies}) == 5
    assert all(body["max_length"] == 99 and body["plugins"] == [] for body in server.bodies)
    (row,) = stream_section([burst], [burst.tok_s * 2], spec).rows
    assert (row["tokens_a_stream"], row["of_offline"]) == (10.0, 0.5)


async def test_bursts_alternate_with_the_engine_alone() -> None:
    server, spec = Server(), StreamSpec(num_streams=2, prompt_chars=7, max_length=99)
    measured: list[int] = []

    def offline_tok_s(burst: Burst) -> float:
        measured.append(len(server.bodies))
        return 2 * burst.tok_s

    async with serving(server.app) as url:
        bursts, offline = await compare_streams(url, spec, offline_tok_s, 2, Random(0))
        alone = await compare_streams(url, spec, None, 1, Random(0))
    assert measured == [3, 5]  # one warm-up turn, then two streams per burst
    assert offline == [2 * burst.tok_s for burst in bursts]
    assert alone[1] == []


async def test_a_chat_continues_under_its_uid() -> None:
    server = Server()
    async with serving(server.app) as url, SseClient(url) as client:
        turns = await measure_http_chat(client, 3, Random(0))
    assert [body.get("uid") for body in server.bodies] == [None, "u", "u"]
    assert [(turn.prompt_tokens, turn.cached_tokens) for turn in turns] == [(100, 40)] * 3


async def test_live_turns_alternate_with_chat_completions() -> None:
    server, spec = Server(), StreamSpec(num_streams=2, prompt_chars=7, max_length=40)
    readings = iter(range(100))

    def meter() -> dict[str, float]:
        now = next(readings) / 100
        return {"ingress": now, "replica": 4 * now, "proxy": 0, "store": 2 * now, "other": 0}

    async with serving(server.app) as url:
        bursts = await compare_live(url, spec, 2, Random(0), meter)
    assert [body["api"] for body in server.bodies] == 3 * [STATELESS, STATELESS, LIVE, LIVE]
    assert {str(body["uid"]) for body in server.bodies if body["api"] == LIVE} == {
        f"u{number}" for number in range(1, 7)
    }
    for body in server.bodies:
        assert (body["max_completion_tokens"], body["min_tokens"], body["plugins"]) == (40, 20, [])
    assert [len(burst.turns[0].piece_times) for burst in bursts[LIVE]] == [3, 3]
    # Ten milliseconds between two readings, for 20 tokens.
    rows = cpu_section(bursts).rows
    assert [row["api"] for row in rows] == [STATELESS, LIVE]
    assert all(
        (row["ingress"], row["replica"], row["outside"]) == (500, 2000, 1500) for row in rows
    )


def test_the_cost_of_live_turns_is_a_median_of_pairs() -> None:
    spec = StreamSpec(num_streams=1)

    def burst(tok_s: float) -> Burst:
        return Burst(["a"], [StreamedTurn(0.0, [0.5, 1.0], {})], round(tok_s))

    stateless = [burst(100), burst(10), burst(1000)]
    live = [burst(90), burst(10), burst(800)]
    rows = live_section({STATELESS: stateless, LIVE: live}, spec).rows
    assert [row["of_stateless"] for row in rows] == [1.0, 0.9]


async def test_a_session_that_is_not_made_is_an_error() -> None:
    async with serving(Starlette()) as url, SseClient(url) as client:
        with pytest.raises(BenchError, match="makes no session"):
            await client.new_session()


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ('{"error": {"message": "a rank is gone"}}', "a rank is gone"),
        ("", "before the reply"),
        ("{nonsense", "does not speak MOSS's API"),
    ],
)
async def test_a_failed_turn_is_an_error(ending: str, message: str) -> None:
    async with serving(Server(ending).app) as url, SseClient(url) as client:
        with pytest.raises(BenchError, match=message):
            await client.turn("hi")


async def test_line_separators_in_a_reply_are_text() -> None:
    async with serving(Server('{"uid": "u\u2028\x85"}').app) as url, SseClient(url) as client:
        assert (await client.turn("hi")).uid == "u\u2028\x85"


async def test_a_refused_request_is_an_error() -> None:
    async with serving(Server().app) as url, SseClient(url) as client:
        with pytest.raises(BenchError, match="not this"):
            await client.turn("no")


async def test_stats_without_token_counts_are_an_error() -> None:
    async def stats(request: Request) -> Response:
        return JSONResponse({"running": 0})

    app = Starlette(routes=[Route("/stats", stats)])
    async with serving(app) as url, SseClient(url) as client:
        with pytest.raises(BenchError, match="does not count tokens"):
            await client.counts()


async def test_an_unreachable_server_is_an_error() -> None:
    async with SseClient("http://127.0.0.1:9") as client:
        with pytest.raises(BenchError, match=r"connection to http://127\.0\.0\.1:9 failed"):
            await client.turn("hi")
