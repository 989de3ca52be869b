"""`/docs`: the API for people, in one page that loads nothing from anywhere else."""

import hashlib
import re
from base64 import b64encode
from importlib.resources import files

from starlette.responses import HTMLResponse, Response

from serve_app.http.endpoint import Call, Endpoint

_PAGE = files("serve_app.http").joinpath("docs.html").read_text("utf-8")


def _allowed(tag: str) -> str:
    """The CSP source of the page's own inline `tag`: a digest of its text."""
    match = re.search(f"<{tag}>(.*?)</{tag}>", _PAGE, re.DOTALL)
    assert match is not None
    return f"'sha256-{b64encode(hashlib.sha256(match[1].encode()).digest()).decode()}'"


_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src {_allowed('script')}; style-src {_allowed('style')};"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


async def docs(call: Call) -> Response:
    return HTMLResponse(_PAGE, headers=_HEADERS)


DOCS = Endpoint("GET", "/docs", docs, "The API for people", access="public", media_type="text/html")
