"""`/v1/sessions`: chats as a resource of their owner. Turns that run are elsewhere.

A session of another owner is answered as one that is not there.
"""

from starlette.responses import JSONResponse, Response

from serve_app.access.permissions import enabled_plugins
from serve_app.api import session_list
from serve_app.api import sessions as api
from serve_app.api.queries import query_types
from serve_app.api.rendered import RENDER, RenderQuery, replies, with_html
from serve_app.errors import SessionNotFoundError, TurnNotFoundError
from serve_app.http.endpoint import Call, Endpoint
from serve_app.rendering.renderer import all_blocks
from serve_app.sessions.catalogue import SessionChanges
from serve_app.sessions.session import Feedback, Session

RENDER_S = 2.0  # for the turns of a session; those that it is not enough for are escaped text


async def create(call: Call) -> Response:
    body = await call.body(api.NewSession)
    changes = SessionChanges(
        title=body.title,
        plugins=_plugins(call, body.plugins),
        defaults=None if body.defaults is None else body.defaults.named,
    )
    session = await call.sessions.create(call.principal.owner, changes)
    return _json(api.session_answer(session))


async def list_all(call: Call) -> Response:
    query, owner = call.queries(session_list.ListQuery), call.principal.owner
    if not call.principal.is_listed:
        return _json(session_list.session_list([], query.limit))
    if query.search:
        page = await call.sessions.search(owner, query.search, query.limit, query.after)
        return _json(session_list.search_list(page))
    found = await call.sessions.list_sessions(owner, query.limit + 1, query.after)
    return _json(session_list.session_list(found, query.limit))


async def read(call: Call) -> Response:
    query, render = call.queries(api.SessionQuery), call.queries(RenderQuery)
    running = await _running(call)
    session = await _load(call)
    answer = api.session_answer(session, with_tree=query.all, running_turn=running)
    if render.is_html:
        blocks = await all_blocks(call.service.renderer, replies(answer), RENDER_S)
        answer = with_html(answer, blocks)
    return _json(answer)


async def patch(call: Call) -> Response:
    uid, body = call.uid, await call.body(api.SessionPatch)
    changes = SessionChanges(
        title=body.title,
        plugins=_plugins(call, body.plugins),
        any_plugins="plugins" in body.model_fields_set and body.plugins is None,
        defaults=body.new_defaults,
        active=body.active_turn,
    )
    running = await _running(call)
    session = _there(await call.sessions.patch(uid, call.principal.owner, changes))
    return _json(api.session_answer(session, running_turn=running))


async def delete(call: Call) -> Response:
    uid = call.uid
    if not await call.sessions.delete(uid, call.principal.owner):
        raise SessionNotFoundError
    return _json(api.SessionDeleted(id=uid))


async def read_turn(call: Call) -> Response:
    turn_id, running = call.path("id"), await _running(call)
    session = await _load(call)
    if turn_id == running and not any(turn.id == turn_id for turn in session.tree):
        raise TurnNotFoundError("the turn still runs: its events are at …/events")
    turn = api.find_turn(session, turn_id)
    return _json(api.turn_answer(session, turn, with_make_up=True))


async def set_feedback(call: Call) -> Response:
    uid, turn_id, body = call.uid, call.path("id"), await call.body(api.FeedbackBody)
    feedback = Feedback(body.liked, body.comment)
    session = _there(await call.sessions.set_feedback(uid, call.principal.owner, turn_id, feedback))
    return _json(api.turn_answer(session, api.find_turn(session, turn_id)))


async def _running(call: Call) -> str | None:
    """The turn that runs on the session. Asked before it is loaded: a turn that ends meanwhile is
    in both rather than in neither."""
    live = call.service.live
    return None if live is None else await live.running(call.uid, call.principal.owner)


async def _load(call: Call) -> Session:
    return _there(await call.sessions.load(call.uid, call.principal.owner))


def _there(session: Session | None) -> Session:
    if session is None:
        raise SessionNotFoundError
    return session


def _plugins(call: Call, asked: list[str] | None) -> tuple[str, ...] | None:
    if asked is None:
        return None
    return tuple(sorted(enabled_plugins(call.principal, call.service.plugins, asked)))


def _json(answer: api.Answer) -> Response:
    return JSONResponse(answer.model_dump())


_SESSIONS, _SESSION = "/v1/sessions", "/v1/sessions/{uid}"
_TURN = f"{_SESSION}/turns/{{id}}"

ENDPOINTS = (
    Endpoint(
        "POST",
        _SESSIONS,
        create,
        "Begin a chat",
        body=api.NewSession,
        answer=api.SessionAnswer,
        errors=(503,),
    ),
    Endpoint(
        "GET",
        _SESSIONS,
        list_all,
        "The caller's chats",
        answer=session_list.SessionList,
        errors=(400, 404, 503),
        query=query_types(session_list.ListQuery),
    ),
    Endpoint(
        "GET",
        _SESSION,
        read,
        "A chat with its turns",
        answer=api.SessionAnswer,
        errors=(400, 404, 503),
        query={**query_types(api.SessionQuery), **RENDER},
    ),
    Endpoint(
        "PATCH",
        _SESSION,
        patch,
        "Change a chat's title, plugins, parameters or active turn",
        body=api.SessionPatch,
        answer=api.SessionAnswer,
        errors=(404, 503),
    ),
    Endpoint(
        "DELETE",
        _SESSION,
        delete,
        "Delete a chat",
        answer=api.SessionDeleted,
        errors=(404, 503),
    ),
    Endpoint(
        "GET",
        _TURN,
        read_turn,
        "A turn, with what it was made of",
        answer=api.TurnAnswer,
        errors=(404, 503),
    ),
    Endpoint(
        "PUT",
        f"{_TURN}/feedback",
        set_feedback,
        "Say whether a turn is good",
        body=api.FeedbackBody,
        answer=api.TurnAnswer,
        errors=(404, 503),
    ),
)
