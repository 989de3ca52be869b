"""`POST /`: MOSS's demo API."""

import asyncio
from dataclasses import replace

from starlette.responses import JSONResponse, Response

from serve_app.access.permissions import choose_model, enabled_plugins
from serve_app.api import demo
from serve_app.api.parsing import IdempotencyKey
from serve_app.http.admission import admitted
from serve_app.http.endpoint import Call, Endpoint
from serve_app.http.exchange import EventStream, run_until_disconnect


async def chat(call: Call) -> Response:
    service, request, caller = call.service, call.request, call.principal
    service.drain.check()
    key = call.idempotency_key
    body = await call.body(demo.ChatRequest)
    choose_model(caller, service.model_names, body.model)
    enabled = enabled_plugins(caller, service.plugins, body.plugins)
    turn = demo.turn_request(body, key, service.model_names, service.plugins)
    turn = replace(turn, owner=caller.owner, enabled=enabled)
    committing = asyncio.Event()
    running = service.runner.run(turn, committing)
    events = admitted(service.gate, caller, body.prompt, turn.meter, running)
    if body.stream:
        stream = demo.encode_stream(events)
        return EventStream(stream, service.ping_s, service.drain, committing)
    work, receive = demo.encode_answer(events), request.receive
    return JSONResponse(await run_until_disconnect(work, receive, service.drain, committing))


ENDPOINTS = (
    Endpoint(
        "POST",
        "/",
        chat,
        "Chat, as MOSS's demo",
        is_admitted=True,
        body=demo.ChatRequest,
        answer=demo.ChatAnswer,
        errors=(404, 409, 422, 429, 503),
        is_stream=True,
        headers={"Idempotency-Key": IdempotencyKey},
    ),
)
