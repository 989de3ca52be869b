"""`POST /v1/login` and `/v1/logout`: the page trades a key for a cookie, renews it, gives it back.

Scripts of the page cannot read the cookie, and browsers send it with no other site's requests.
"""

from starlette.responses import JSONResponse, Response

from serve_app.access.cookies import COOKIE, MAX_AGE_S
from serve_app.access.gate import Credentials
from serve_app.api.login import LoginAnswer, LoginRequest
from serve_app.http.endpoint import Call, Endpoint


async def login(call: Call) -> Response:
    body, gate = await call.body(LoginRequest), call.service.gate
    cookie = await gate.login(Credentials(body.key, call.request.cookies.get(COOKIE)))
    principal = await gate.principal(Credentials(cookie=cookie))
    response = JSONResponse(LoginAnswer(owner=principal.owner).model_dump())
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=MAX_AGE_S,
        httponly=True,
        samesite="strict",
        secure=_is_https(call),
        path=_path(call),
    )
    return response


async def logout(call: Call) -> Response:
    if (cookie := call.request.cookies.get(COOKIE)) is not None:
        await call.service.gate.logout(cookie)
    response = Response(status_code=204)
    response.delete_cookie(
        COOKIE, httponly=True, samesite="strict", secure=_is_https(call), path=_path(call)
    )
    return response


def _path(call: Call) -> str:
    """Of this application: one beside it has keys of its own."""
    return str(call.request.scope.get("root_path", "")) or "/"


def _is_https(call: Call) -> bool:
    """For the browser, which may speak to a proxy that ends TLS."""
    request = call.request
    return "https" in (request.url.scheme, request.headers.get("X-Forwarded-Proto"))


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/login",
        login,
        "Trade a key for the page's cookie, or renew it",
        access="public",
        body=LoginRequest,
        answer=LoginAnswer,
        errors=(400, 401, 413, 503),
    ),
    Endpoint(
        "POST",
        "/v1/logout",
        logout,
        "End the page's cookie",
        access="public",
        statuses=(204,),
        errors=(503,),
    ),
)
