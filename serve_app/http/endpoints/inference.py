"""`POST /api/inference`: MOSS's service API."""

import asyncio
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from serve_app.access.permissions import choose_model, enabled_plugins
from serve_app.api import inference
from serve_app.api.parsing import IdempotencyKey
from serve_app.http.admission import admitted
from serve_app.http.endpoint import Call, Endpoint
from serve_app.http.errors import error_body, find, note_error
from serve_app.http.exchange import run_until_disconnect


async def infer(call: Call) -> Response:
    try:
        return JSONResponse(await _answer(call))
    except ClientDisconnect:
        raise
    except Exception as error:
        status = find(error).status
        body = inference.encode_error(error, status)
        if body is None:
            raise
        error_body(error)  # logs what was not expected
        note_error(call.request.scope, find(error))
        return JSONResponse(body, body["code"])


async def _answer(call: Call) -> dict[str, Any]:
    service, caller = call.service, call.principal
    service.drain.check()
    key = call.idempotency_key
    body = await call.body(inference.InferenceRequest)
    choose_model(caller, service.model_names, None)
    on, off = (body.switched(is_on, service.plugins) for is_on in (True, False))
    on = enabled_plugins(caller, service.plugins, on)
    enabled = (on | enabled_plugins(caller, service.plugins, None)) - off
    turn = inference.turn_request(body, caller.owner, enabled, service.max_model_len, key)
    committing = asyncio.Event()
    running = service.runner.run(turn, committing)
    events = admitted(service.gate, caller, body.request, turn.meter, running)
    work, receive = inference.encode_answer(events), call.request.receive
    return await run_until_disconnect(work, receive, service.drain, committing)


ENDPOINTS = (
    Endpoint(
        "POST",
        "/api/inference",
        infer,
        "Chat, as MOSS's service",
        is_admitted=True,
        body=inference.InferenceRequest,
        answer=inference.InferenceAnswer,
        errors=(409, 422, 429, 503),
        headers={"Idempotency-Key": IdempotencyKey},
        error=inference.InferenceError,
    ),
)
