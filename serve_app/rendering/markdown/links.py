"""Which links stay links, and which addresses in the text become some."""

import re

from markdown_it.rules_inline import StateInline

SCHEMES = frozenset({"http", "https", "mailto"})
_SAFE = re.compile(r"(?:https?://|mailto:)[^\s\x00-\x1f\x7f]+", re.IGNORECASE)
MAX_URL = 2000

_SCHEME = re.compile(r"(?<![a-z0-9.+-])https?$", re.IGNORECASE)
_REST = re.compile(
    r"://[a-z0-9][a-z0-9.-]{0,255}+(?::[0-9]{1,5}+)?+(?!@)"
    r"(?:[/?#](?:[\w.~:/?#@!+,;=%()'-]|&(?![a-z]+;)){0,2000})?",
    re.ASCII | re.IGNORECASE,
)
_PUNCTUATION = "?!.,:;'_~"


def is_safe_link(url: str) -> bool:
    """Whether `url` is a whole address of a kind that runs nothing.

    A relative one would be an address of this server, of which a reply knows nothing.
    """
    return len(url) <= MAX_URL and _SAFE.fullmatch(url) is not None


def bare_link(state: StateInline, silent: bool) -> bool:
    """The rule for an address that stands in the text as it is; a parser stops at its `:`.

    Its characters are ASCII: in Chinese the sentence goes on without a space. As in GitHub's
    markdown, punctuation at its end and a `)` that it did not open are the sentence's. It is shown
    as it is written, and has no user before its host, which could look like another host.
    """
    if state.linkLevel > 0 or not state.src.startswith("://", state.pos):
        return False
    scheme = _SCHEME.search(state.pending[-7:])
    rest = _REST.match(state.src, state.pos, state.posMax)
    if scheme is None or rest is None:
        return False
    url = _without_end(scheme[0] + rest[0])
    if not state.md.validateLink(state.md.normalizeLink(url)):
        return False
    if not silent:
        state.pending = state.pending[: -len(scheme[0])]
        state.push("link_open", "a", 1).attrs = {"href": state.md.normalizeLink(url)}
        state.push("text", "", 0).content = url
        state.push("link_close", "a", -1)
    state.pos += len(url) - len(scheme[0])
    return True


def _without_end(url: str) -> str:
    url = url.rstrip(_PUNCTUATION)
    while url.endswith(")") and url.count(")") > url.count("("):
        url = url[:-1].rstrip(_PUNCTUATION)
    return url
