"""`POST /v1/completions`: OpenAI's raw completions, without a template or a session."""

import time
from collections.abc import Sequence

from starlette.responses import JSONResponse, Response

from serve_app.access.permissions import choose_model
from serve_app.api.openai.completion_request import (
    CompletionBody,
    Prompt,
    check_ids,
    check_supported,
    read_prompts,
)
from serve_app.api.openai.completions import (
    Asked,
    Completion,
    encode_completion,
    encode_completion_stream,
)
from serve_app.chat.completion import CompletionRequest
from serve_app.http.admission import metered
from serve_app.http.endpoint import Call, Endpoint
from serve_app.http.exchange import EventStream, run_until_disconnect
from serve_app.http.service import HttpService
from serve_app.sessions.session import new_token


async def complete(call: Call) -> Response:
    service, tokenizer = call.service, call.service.tokenizer
    service.drain.check()
    body = await call.body(CompletionBody)
    model = choose_model(call.principal, service.model_names, body.model)
    check_supported(body)
    params, prompts = body.params(), read_prompts(body)
    check_ids(body, prompts, tokenizer.vocab_size)
    asked = Asked(
        id=f"cmpl-{new_token()}",
        created=int(time.time()),
        model=model,
        n=params.n,
        prompts=await _ids(service, prompts),
        texts=_texts(service, prompts) if body.echo else None,
        has_logprobs=body.logprobs is not None,
    )
    deadline = service.deadline(body.max_time)
    owner = call.principal.owner
    request = CompletionRequest(asked.id, asked.prompts, params, deadline, owner, bool(body.stream))
    num_tokens = sum(map(len, request.prompts))
    events = metered(service.gate, call.principal, num_tokens, service.completer.complete(request))
    if body.stream:
        stream = encode_completion_stream(events, asked, tokenizer, body.include_usage)
        return EventStream(stream, service.ping_s, service.drain)
    work = encode_completion(events, asked, tokenizer)
    return JSONResponse(await run_until_disconnect(work, call.request.receive, service.drain))


async def _ids(service: HttpService, prompts: Sequence[Prompt]) -> list[Sequence[int]]:
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    encoded = iter(await service.completer.encode(texts) if texts else ())
    return [next(encoded) if isinstance(prompt, str) else prompt for prompt in prompts]


def _texts(service: HttpService, prompts: Sequence[Prompt]) -> list[str]:
    """What an echo shows: a text as it is, of ids special tokens, too."""
    decode = service.tokenizer.decode
    return [
        prompt if isinstance(prompt, str) else decode(prompt, skip_special=False)
        for prompt in prompts
    ]


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/completions",
        complete,
        "Raw completions, as OpenAI",
        is_admitted=True,
        body=CompletionBody,
        answer=Completion,
        errors=(403, 404, 408, 429, 500, 503),
        is_stream=True,
    ),
)
