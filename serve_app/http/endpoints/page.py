"""`/ui`: the page, whose files are public; its policy says to browsers what it may load and run."""

from starlette.responses import RedirectResponse, Response

from serve_app.errors import PathNotFoundError
from serve_app.http.endpoint import Call, Endpoint
from serve_app.page.static_files import INDEX, StaticFile, read_static_files

_FILES = {**read_static_files()}
_INDEX = _FILES.pop(INDEX)  # its URLs are relative to `/ui`
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self';"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_HEADERS = {
    "Cache-Control": "no-cache",  # a browser asks each time whether it has the newest one
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_MATCH = "If-None-Match"


async def index(call: Call) -> Response:
    return _answer(call, _INDEX)


async def file(call: Call) -> Response:
    if (found := _FILES.get(call.path("file"))) is None:
        raise PathNotFoundError("the page has no such file")
    return _answer(call, found)


async def to_page(call: Call) -> Response:
    """Of this application, whatever name or prefix a client says that it has."""
    prefix = str(call.request.scope.get("root_path", "")).strip("/")
    return RedirectResponse(f"/{prefix}/ui" if prefix else "/ui", 307, _HEADERS)


def _answer(call: Call, found: StaticFile) -> Response:
    headers = {**_HEADERS, "ETag": found.etag}
    known = ",".join(call.request.headers.getlist(_MATCH)).split(",")
    if {each.strip().removeprefix("W/") for each in known} & {found.etag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.media_type, headers=headers)


ENDPOINTS = (
    Endpoint(
        "GET",
        "/ui",
        index,
        "The page",
        access="public",
        statuses=(200, 304),
        media_type="text/html",
        headers={_MATCH: str},
    ),
    Endpoint(
        "GET",
        "/ui/{file}",
        file,
        "A file of the page",
        access="public",
        errors=(404,),
        statuses=(200, 304),
        media_type="*/*",
        headers={_MATCH: str},
    ),
    *(
        Endpoint("GET", path, to_page, "To the page", "public", statuses=(307,), media_type="")
        for path in ("/", "/ui/")
    ),
)
