"""Which links stay links."""

import re
from typing import Self

SCHEMES = frozenset({"http", "https", "mailto"})
_SAFE = re.compile(r"(?:https?://|mailto:)[^\s\x00-\x1f\x7f]+", re.IGNORECASE)
MAX_URL = 2000
_BARE = re.compile(r"https?://[a-z0-9][\w.~:/?#@!&+,;=%()'-]{0,1999}", re.ASCII | re.IGNORECASE)
_PUNCTUATION = "?!.,:;'_"


def is_safe_link(url: str) -> bool:
    """Whether `url` is a whole address of a kind that runs nothing.

    A relative one would be an address of this server, of which a reply knows nothing.
    """
    return len(url) <= MAX_URL and _SAFE.fullmatch(url) is not None


class BareAddress:
    """What markdown-it asks for an address that stands in the text as it is.

    Its characters are ASCII: in Chinese the sentence goes on without a space. As in GitHub's
    markdown, punctuation at its end and a `)` that it did not open are the sentence's.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @classmethod
    def match_at_start(cls, text: str) -> Self | None:
        found = _BARE.match(text)
        if found is None:
            return None
        url = found[0].rstrip(_PUNCTUATION)
        while url.endswith(")") and url.count(")") > url.count("("):
            url = url[:-1].rstrip(_PUNCTUATION)
        return cls(url)
