"""`POST /`: MOSS's demo API."""

import asyncio

from starlette.responses import JSONResponse, Response

from serve_app.api import demo
from serve_app.api.parsing import parse_idempotency_key
from serve_app.http.endpoint import Call, Endpoint
from serve_app.http.exchange import EventStream, run_until_disconnect


async def chat(call: Call) -> Response:
    service, request = call.service, call.request
    service.drain.check()
    key = parse_idempotency_key(request.headers.get("Idempotency-Key"))
    body = await call.body(demo.ChatRequest)
    turn = demo.turn_request(body, key, service.model_names, service.plugins)
    committing = asyncio.Event()
    events = service.runner.run(turn, committing)
    if body.stream:
        stream = demo.encode_stream(events)
        return EventStream(stream, service.ping_s, service.drain, committing)
    work, receive = demo.encode_answer(events), request.receive
    return JSONResponse(await run_until_disconnect(work, receive, service.drain, committing))


ENDPOINTS = (
    Endpoint("POST", "/", chat, "Chat, as MOSS's demo", body=demo.ChatRequest, is_stream=True),
)
