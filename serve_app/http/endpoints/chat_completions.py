"""`POST /v1/chat/completions`: OpenAI's chat, stateless or as a turn of a session."""

import asyncio
import time
from collections.abc import AsyncGenerator

from starlette.responses import JSONResponse, Response

from serve_app.access.permissions import choose_model, enabled_plugins
from serve_app.api.openai.chat_answer import AnswerHead, ChatCompletion, encode_answer
from serve_app.api.openai.chat_request import (
    ChatCompletionRequest,
    Serving,
    check_supported,
    reply_request,
    turn_request,
)
from serve_app.api.openai.chat_stream import encode_stream
from serve_app.api.parsing import IdempotencyKey
from serve_app.api.replies import as_reply
from serve_app.chat.events import Event
from serve_app.errors import InvalidFieldError
from serve_app.http.admission import admitted
from serve_app.http.endpoint import Call, Endpoint
from serve_app.http.exchange import EventStream, run_until_disconnect
from serve_app.sessions.session import new_token


async def complete(call: Call) -> Response:
    service, tokenizer = call.service, call.service.tokenizer
    service.drain.check()
    body = await call.body(ChatCompletionRequest)
    model = choose_model(call.principal, service.model_names, body.model)
    check_supported(body, service.replier.has_thoughts)
    body.check_ids(tokenizer.vocab_size)
    request_id, committing = new_token(), asyncio.Event()
    events = _events(call, body, request_id, committing)
    head = AnswerHead(f"chatcmpl-{request_id}", int(time.time()), model, body.session_id)
    if body.stream:
        stream = encode_stream(events, head, tokenizer, body.include_usage)
        return EventStream(stream, service.ping_s, service.drain, committing)
    work, receive = encode_answer(events, head, tokenizer), call.request.receive
    return JSONResponse(await run_until_disconnect(work, receive, service.drain, committing))


def _events(
    call: Call, body: ChatCompletionRequest, request_id: str, committing: asyncio.Event
) -> AsyncGenerator[Event]:
    """The events of the reply, which nothing has begun yet."""
    service, caller = call.service, call.principal
    serving = Serving(
        request_id=request_id,
        owner=caller.owner,
        enabled=enabled_plugins(caller, service.plugins, body.plugins),
        max_model_len=service.max_model_len,
        deadline=service.deadline(body.max_time),
    )
    key = _key(call, body)
    if body.session_id is None:  # nothing is stored that the key could find again
        request = reply_request(body, serving)
        reply = service.replier.reply(request)
        return admitted(service.gate, caller, body.text, request.meter, reply)
    turn = turn_request(body, serving, key)
    events = service.runner.run(turn, committing)
    return as_reply(admitted(service.gate, caller, body.text, turn.meter, events))


def _key(call: Call, body: ChatCompletionRequest) -> str | None:
    """Raises InvalidFieldError for log probabilities under a key: a stored turn has none."""
    key = call.idempotency_key
    if key is not None and body.session_id is not None and body.logprobs:
        raise InvalidFieldError("logprobs: not with an Idempotency-Key", "logprobs")
    return key


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/chat/completions",
        complete,
        "Chat, as OpenAI",
        is_admitted=True,
        body=ChatCompletionRequest,
        answer=ChatCompletion,
        errors=(404, 409, 422, 429, 503),
        is_stream=True,
        headers={"Idempotency-Key": IdempotencyKey},
    ),
)
