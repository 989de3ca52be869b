"""The HTML that may leave the renderer: an explicit list of tags, attributes, classes and URLs.

Everything else is dropped by ammonia (nh3), whatever the stages before it have made of a text.
"""

import nh3

from serve_app.rendering.markdown.code import CLASSES
from serve_app.rendering.markdown.links import SCHEMES
from serve_app.rendering.markdown.mathml import ATTRIBUTES as MATH_ATTRIBUTES
from serve_app.rendering.markdown.mathml import TAGS as MATH_TAGS

_TAGS = """
    a blockquote br code del div em h1 h2 h3 h4 h5 h6 hr li ol p pre span strong sup table
    tbody td th thead tr ul
"""
TAGS = frozenset(_TAGS.split())
ATTRIBUTES = {
    "*": frozenset[str](),  # else ammonia allows two everywhere
    "a": frozenset({"href", "title"}),
    "div": frozenset({"data-lang"}),
    "ol": frozenset({"start"}),
}
ALIGNED = frozenset({"left", "center", "right"})
CLASSES_OF = {
    "code": frozenset({"tex"}),
    "div": frozenset({"code", "math"}),
    "span": CLASSES | {"math"},
    "sup": frozenset({"cite"}),
    "td": ALIGNED,
    "th": ALIGNED,
}
LINK = {"rel": "noopener noreferrer nofollow", "target": "_blank"}

_CLEANER = nh3.Cleaner(
    tags=TAGS | MATH_TAGS,
    clean_content_tags=set(),
    attributes={**ATTRIBUTES, **dict.fromkeys(MATH_TAGS, MATH_ATTRIBUTES)},
    allowed_classes=CLASSES_OF,
    link_rel=LINK["rel"],
    set_tag_attribute_values={"a": {"target": LINK["target"]}},
    url_schemes=SCHEMES,
    url_relative="deny",
    generic_attribute_prefixes=set(),
)


def clean(html: str) -> str:
    return _CLEANER.clean(html)
