"""Which links stay links."""

import re

SCHEMES = frozenset({"http", "https", "mailto"})
_SAFE = re.compile(r"(?:https?://|mailto:)[^\s\x00-\x1f\x7f]+", re.IGNORECASE)
MAX_URL = 2000


def is_safe_link(url: str) -> bool:
    """Whether `url` is a whole address of a kind that runs nothing.

    A relative one would be an address of this server, of which a reply knows nothing.
    """
    return len(url) <= MAX_URL and _SAFE.fullmatch(url) is not None
