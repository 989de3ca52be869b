"""`/v1/sessions/{uid}/turns`: turns that run by themselves, and are followed from anywhere."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing

from starlette.responses import JSONResponse, Response

from serve_app.access.gate import Admission
from serve_app.access.permissions import choose_model, enabled_plugins
from serve_app.api import turns as api
from serve_app.api.parsing import IdempotencyKey
from serve_app.api.rendered import RENDER, RenderQuery
from serve_app.chat.turn import TurnRequest
from serve_app.errors import SessionNotFoundError, TurnNotFoundError
from serve_app.http.endpoint import Call, Endpoint
from serve_app.http.endpoints.live_stream import LiveStream, RenderedStream
from serve_app.http.errors import told_response
from serve_app.http.exchange import run_until_disconnect
from serve_app.live.event import LiveEvent
from serve_app.live.service import Admit, LiveTurns, Started
from serve_app.sessions.session import is_uid
from serve_app.streams import with_timeouts

# A turn that fails within this time is an error response instead of an event.
EARLY_S = 0.25
LAST_EVENT_ID = "Last-Event-ID"


async def create(call: Call) -> Response:
    call.service.drain.check()
    key, query = call.idempotency_key, call.queries(RenderQuery)
    body = await call.body(api.NewTurn)
    started = await _live(call).start(_request(call, body, key), _admit(call))
    return await _answer(call, started, query, is_stream=bool(body.stream))


async def regenerate(call: Call) -> Response:
    call.service.drain.check()
    turn_id, key, query = _turn_id(call), call.idempotency_key, call.queries(RenderQuery)
    body = await call.body(api.TurnOptions)
    request = _request(call, body, key, instead_of=turn_id)
    started = await _live(call).regenerate(request, turn_id, _admit(call))
    return await _answer(call, started, query, is_stream=bool(body.stream))


async def follow(call: Call) -> Response:
    call.service.drain.check()
    after, query = _after(call), call.queries(RenderQuery)
    events = await _events(call, after)
    if events is None:
        return Response(status_code=204)
    if query.is_html and after >= 0:
        await events.aclose()  # a reply is rendered from its beginning
        events = await _events(call, -1)
        assert events is not None  # none ends before its beginning
    return _stream(call, events, query, after)


async def cancel(call: Call) -> Response:
    uid, turn_id = call.uid, _turn_id(call)
    body = await call.body(api.CancelBody)
    last = await _live(call).cancel(uid, call.principal.owner, turn_id, keep=body.keep)
    return JSONResponse(api.cancel_answer(turn_id, last).model_dump())


async def replay(call: Call) -> Response:
    """Makes a turn of the caller's own again: its text is nobody else's."""
    call.service.drain.check()
    uid, turn_id = call.uid, _turn_id(call)
    if await call.sessions.load(uid, call.principal.owner) is None:
        raise SessionNotFoundError
    work = _live(call).replay(uid, turn_id)
    made = await run_until_disconnect(work, call.request.receive, call.service.drain)
    answer = api.ReplayAnswer(
        differences={name: [*pair] for name, pair in made.differences.items()},
        changed=[*made.changed],
        reply=made.reply,
    )
    return JSONResponse(answer.model_dump())


def _live(call: Call) -> LiveTurns:
    assert call.service.live is not None  # a server with these endpoints has them
    return call.service.live


async def _events(call: Call, after: int) -> AsyncGenerator[LiveEvent] | None:
    return await _live(call).follow(call.uid, call.principal.owner, _turn_id(call), after)


def _turn_id(call: Call) -> str:
    if not is_uid(turn_id := call.path("id")):
        raise TurnNotFoundError("the session has no such turn")
    return turn_id


def _after(call: Call) -> int:
    """The number of the last event that the reader has; -1 for none. The header is newer."""
    texts = (("after", call.query("after")), (LAST_EVENT_ID, call.header(LAST_EVENT_ID)))
    numbers = [api.parse_event_number(name, text) for name, text in texts if text is not None]
    return numbers[-1] if numbers else -1


def _request(
    call: Call, body: api.TurnOptions, key: str | None, instead_of: str = ""
) -> TurnRequest:
    service, caller = call.service, call.principal
    choose_model(caller, service.model_names, body.model)
    enabled = enabled_plugins(caller, service.plugins, body.plugins)
    return api.turn_request(body, caller.owner, call.uid, enabled, key, instead_of)


def _admit(call: Call) -> Admit:
    """The caller's limits hold while the turn runs, whether or not the caller stays."""

    def admit(num_tokens: int) -> AbstractAsyncContextManager[Admission]:
        return call.service.gate.admit(call.principal, num_tokens)

    return admit


async def _answer(call: Call, started: Started, query: RenderQuery, *, is_stream: bool) -> Response:
    events = await _live(call).follow(started.uid, call.principal.owner, started.id)
    assert events is not None  # nothing was told yet
    if is_stream or "text/event-stream" in call.request.headers.get("accept", ""):
        return _stream(call, _begun(events, started), query)
    last = await run_until_disconnect(
        _last(events), call.request.receive, call.service.drain, is_reader=True
    )
    if started.failure is not None:
        raise started.failure
    if last.kind == "error":
        return told_response(last.data)
    return JSONResponse(api.done_answer(last.data).model_dump())


def _stream(
    call: Call, events: AsyncGenerator[LiveEvent], query: RenderQuery, after: int = -1
) -> Response:
    if query.is_html:
        return RenderedStream(events, call.service, after)
    return LiveStream(events, call.service)


async def _begun(events: AsyncGenerator[LiveEvent], started: Started) -> AsyncGenerator[LiveEvent]:
    """`events`, unless the turn fails at once: raises that error, before anything is sent."""
    held: list[LiveEvent] | None = []
    patience = lambda: None if held is None else EARLY_S  # noqa: E731
    async with aclosing(with_timeouts(events, patience)) as timed:
        async for event in timed:
            if held is None:
                assert event is not None
                yield event
                continue
            held += [] if event is None else [event]
            if event is not None and len(held) < 2:
                continue
            if event is not None and event.kind == "error" and started.failure is not None:
                raise started.failure
            ready, held = held, None
            for each in ready:
                yield each


async def _last(events: AsyncGenerator[LiveEvent]) -> LiveEvent:
    """The terminal event."""
    async with aclosing(events):
        *_, last = [event async for event in events]
    return last


_TURNS = "/v1/sessions/{uid}/turns"
_TURN = f"{_TURNS}/{{id}}"
_KEY = {"Idempotency-Key": IdempotencyKey}
_FAILURES = (400, 403, 404, 408, 409, 422, 429, 500, 503)

ENDPOINTS = (
    Endpoint(
        "POST",
        _TURNS,
        create,
        "Take a turn, which goes on if the client leaves",
        is_admitted=True,
        body=api.NewTurn,
        answer=api.DoneAnswer,
        errors=_FAILURES,
        is_stream=True,
        query=RENDER,
        headers=_KEY,
    ),
    Endpoint(
        "POST",
        f"{_TURN}/regenerate",
        regenerate,
        "Take a turn again, beside the first one",
        is_admitted=True,
        body=api.TurnOptions,
        answer=api.DoneAnswer,
        errors=_FAILURES,
        is_stream=True,
        query=RENDER,
        headers=_KEY,
    ),
    Endpoint(
        "GET",
        f"{_TURN}/events",
        follow,
        "Follow a turn from its beginning, or after an event",
        errors=(400, 404, 503),
        statuses=(200, 204),
        media_type="text/event-stream",
        query={"after": api.EventNumber, **RENDER},
        headers={LAST_EVENT_ID: api.EventNumber},
    ),
    Endpoint(
        "POST",
        f"{_TURN}/cancel",
        cancel,
        "End a running turn, without a trace or with what was told",
        body=api.CancelBody,
        answer=api.CancelAnswer,
        errors=(404, 503),
    ),
    Endpoint(
        "POST",
        f"{_TURN}/replay",
        replay,
        "Make a stored turn again, and compare the bytes",
        access="admin",
        answer=api.ReplayAnswer,
        errors=(400, 404, 408, 429, 500, 503),
    ),
)
