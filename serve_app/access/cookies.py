"""The page's cookie: random, kept by a browser, and known to the server by its digest only.

It has the form `ID.SECRET`. With keys, ID is that of the key for which it was traded, which its
end takes along. Without keys ID is PAGE, and whoever has the cookie is an owner.
"""

import re
import secrets

from serve_app.access.principal import Principal
from serve_app.api_secret import digest_of

COOKIE = "moss_page"
MAX_AGE_S = 7 * 24 * 3600
PAGE = "page"
_FORM = re.compile(r"([0-9a-z-]{1,32})\.[0-9a-f]{64}")


def new_cookie(key_id: str = PAGE) -> str:
    return f"{key_id}.{secrets.token_hex(32)}"


def key_id_of(cookie: str) -> str | None:
    """None if it does not have the form of our cookies."""
    match = _FORM.fullmatch(cookie)
    return match and match[1]


def page_principal(cookie: str) -> Principal:
    """The owner of the chats of one browser, where there are no keys."""
    return Principal(f"page-{digest_of(cookie)[:32]}", is_admin=True)
