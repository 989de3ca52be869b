"""What is wrong with HTML from a renderer, as a browser would read it."""

import re
from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

from tests.serve_app.rendering.markdown.allowed import ATTRIBUTES, CLASS, TAGS

_URL = re.compile(r"(?:https?://|mailto:)[^\s<>\"]+", re.IGNORECASE)


def objections(html: str) -> list[str]:
    """Each tag, attribute and URL that may not be there."""
    page = LexborHTMLParser(html)
    assert page.root is not None
    nodes = [node for node in page.root.traverse() if node.tag not in ("html", "head", "body")]
    return [each for node in nodes for each in _of(node)]


def _of(node: LexborNode) -> Iterator[str]:
    tag = node.tag or ""
    if tag not in TAGS:
        yield f"<{tag}>"
    for name, value in node.attributes.items():
        if name not in ATTRIBUTES.get(tag, ()):
            yield f"<{tag} {name}>"
        if name == "href" and not _URL.fullmatch(value or ""):
            yield f"href={value}"
        if name == "class" and not CLASS.fullmatch(value or ""):
            yield f"class={value}"
    if tag == "a":
        wanted = {"rel": "noopener noreferrer nofollow", "target": "_blank"}
        if {**node.attributes, **wanted} != node.attributes:
            yield "a link that tells where it was"
