"""What may come out of the renderer, written down once more, apart from it."""

import re

_HTML = """
    a blockquote br code del div em h1 h2 h3 h4 h5 h6 hr li ol p pre span strong sup table tbody
    td th thead tr ul
"""
_MATHML = """
    math mrow mi mn mo mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover
    mtable mtr mtd mpadded mphantom mstyle menclose
"""
_OF_MATHML = """
    accent accentunder columnalign columnlines columnspacing depth display displaystyle fence form
    height largeop linethickness lspace mathbackground mathcolor mathsize mathvariant maxsize
    minsize movablelimits notation rowlines rowspacing rspace scriptlevel separator stretchy
    symmetric voffset width
"""
TAGS = {*_HTML.split(), *_MATHML.split()}
ATTRIBUTES: dict[str, set[str]] = {
    "a": {"href", "title", "rel", "target"},
    "div": {"class", "data-lang"},
    "ol": {"start"},
    **{tag: {"class"} for tag in ("code", "span", "sup", "td", "th")},
    **{tag: {*_OF_MATHML.split()} for tag in _MATHML.split()},
}
CLASS = re.compile(r"(?:[a-z][a-z0-9]{0,2}|code|math|tex|cite|left|center|right)?")
