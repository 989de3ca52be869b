"""`POST /tokenize` and `/detokenize`, as vLLM's servers have them."""

import time

from starlette.responses import JSONResponse, Response

from serve_app.access.permissions import choose_model, enabled_plugins
from serve_app.api.openai.chat_request import (
    ChatCompletionRequest,
    Serving,
    check_supported,
    reply_request,
)
from serve_app.api.openai.tokenize import (
    DetokenizeBody,
    Detokenized,
    TokenizeBody,
    Tokens,
    check_ids,
    tokens_answer,
)
from serve_app.http.endpoint import Call, Endpoint
from serve_app.sessions.session import new_token


async def tokenize(call: Call) -> Response:
    service = call.service
    body = await call.body(TokenizeBody)
    choose_model(call.principal, service.model_names, body.model)
    chat = body.chat()
    if chat is not None:
        ids = await _chat_ids(call, chat)
    else:
        (ids,) = await service.completer.encode([body.prompt or ""])
    with_texts = bool(body.return_token_strs)
    answer = tokens_answer(ids, service.max_model_len, service.tokenizer, with_texts)
    return JSONResponse(answer.model_dump())


async def _chat_ids(call: Call, chat: ChatCompletionRequest) -> list[int]:
    """The prompt of the first pass, as a chat completion would have it."""
    service = call.service
    check_supported(chat, service.replier.has_thoughts)
    serving = Serving(
        request_id=new_token(),
        owner=call.principal.owner,
        enabled=enabled_plugins(call.principal, service.plugins, chat.plugins),
        max_model_len=service.max_model_len,
        deadline=time.monotonic() + service.max_time_s,
    )
    prompt = await service.replier.prompt(reply_request(chat, serving))
    return list(prompt.token_ids)


async def detokenize(call: Call) -> Response:
    body = await call.body(DetokenizeBody)
    choose_model(call.principal, call.service.model_names, body.model)
    tokenizer = call.service.tokenizer
    check_ids(body.tokens, tokenizer)
    text = tokenizer.decode(body.tokens, skip_special=False)
    return JSONResponse(Detokenized(prompt=text).model_dump())


ENDPOINTS = (
    Endpoint(
        "POST",
        "/tokenize",
        tokenize,
        "The ids of a text, or of a chat's prompt",
        body=TokenizeBody,
        answer=Tokens,
        errors=(403, 404, 408),
    ),
    Endpoint(
        "POST",
        "/detokenize",
        detokenize,
        "The text of ids",
        body=DetokenizeBody,
        answer=Detokenized,
        errors=(403, 404),
    ),
)
