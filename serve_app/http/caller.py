"""Who makes a request: what it shows, and whether that is enough for an endpoint."""

from starlette.requests import Request

from serve_app.access.cookies import COOKIE
from serve_app.access.gate import Credentials, Gate
from serve_app.access.principal import NOBODY, Principal
from serve_app.errors import PermissionDeniedError
from serve_app.http.endpoint import Access


async def find_caller(request: Request, access: Access, gate: Gate) -> Principal:
    """The caller of an endpoint with that `access`.

    Raises InvalidKeyError, PermissionDeniedError and StoreUnavailableError.
    """
    if access == "public":
        return NOBODY
    principal = await gate.principal(shown_credentials(request))
    if access == "admin" and not principal.is_admin:
        raise PermissionDeniedError("your key is not that of an administrator")
    return principal


def shown_credentials(request: Request) -> Credentials:
    """The key of `Authorization: Bearer`, else of the header `apikey`; and the page's cookie."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    key = bearer or request.headers.get("apikey")
    return Credentials(key or None, request.cookies.get(COOKIE))
