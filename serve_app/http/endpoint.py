"""An endpoint as data: the one table of them drives routing, the check of keys and OpenAPI."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response

from serve_app.access.principal import Principal
from serve_app.api.parsing import Body, at_most_one, parse_body, parse_idempotency_key
from serve_app.api.queries import Query, parse_query
from serve_app.errors import SessionNotFoundError
from serve_app.http.exchange import read_body
from serve_app.http.service import HttpService
from serve_app.sessions.catalogue import SessionCatalogue
from serve_app.sessions.session import is_uid

Access = Literal["public", "key", "admin"]


@dataclass(frozen=True)
class Call:
    """One request to an endpoint, by a caller who may make it."""

    request: Request
    service: HttpService
    principal: Principal

    async def body(self, model: type[Body]) -> Body:
        """The JSON body. Raises InvalidFieldError, BodyTooLargeError and BodyTimeoutError."""
        service = self.service
        raw = await read_body(self.request, service.max_body_bytes, service.body_timeout_s)
        return parse_body(raw, model)

    def path(self, name: str) -> str:
        """The value of `{name}` in the path."""
        return str(self.request.path_params[name])

    @property
    def uid(self) -> str:
        """The session's uid in the path. Text of another form is never looked up.

        Raises SessionNotFoundError for such text."""
        if not is_uid(uid := self.path("uid")):
            raise SessionNotFoundError
        return uid

    @property
    def idempotency_key(self) -> str | None:
        """Of the header. Raises InvalidFieldError for one of another form, and for two."""
        return parse_idempotency_key(self.header("Idempotency-Key"))

    def header(self, name: str) -> str | None:
        """Raises InvalidFieldError if it is there twice."""
        return at_most_one(name, self.request.headers.getlist(name))

    def query(self, name: str) -> str | None:
        """A field of the URL's query. Raises InvalidFieldError if it is there twice."""
        return at_most_one(name, self.request.query_params.getlist(name))

    def queries(self, model: type[Query]) -> Query:
        """The query as a `model`. Raises InvalidFieldError."""
        return parse_query({name: self.query(name) for name in model.model_fields}, model)

    @property
    def sessions(self) -> SessionCatalogue:
        """For endpoints of a server that has sessions."""
        assert self.service.sessions is not None
        return self.service.sessions


@dataclass(frozen=True)
class Endpoint:
    """`run` answers requests of `method` to `path`, which may have `{name}` parts.

    `body` is the pydantic model of the JSON body, `answer` that of a 200; both are for OpenAPI, as
    are `errors`, the statuses of possible failures, and the types of `query` and `headers`: what it
    reads there, all optional. `error` is the model of errors in a form of its own. A "public"
    endpoint needs no key. One that `is_admitted` asks the gate to admit its work; the requests of
    others are just counted.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    run: Callable[[Call], Awaitable[Response]]
    summary: str
    access: Access = "key"
    is_admitted: bool = False
    body: type[Any] | None = None
    answer: type[Any] | None = None
    errors: tuple[int, ...] = ()
    is_stream: bool = False  # it can answer with server-sent events
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, Any] = field(default_factory=dict)
    statuses: tuple[int, ...] = (200,)  # of success; a 204 or 304 has no body
    media_type: str = "application/json"  # of an answer that is not a stream; "": it is empty
    error: type[Any] | None = None
