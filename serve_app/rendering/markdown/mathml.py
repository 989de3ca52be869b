"""LaTeX as MathML, in the subset that browsers draw (MathML Core).

latex2mathml writes entities into texts and leaves markup in them unescaped when it makes a string,
so its tree is used, and made a string here. It keeps links and styles of `\\href` and `\\style`;
only attributes of ATTRIBUTES with short values stay.
"""

import re
from html import unescape
from xml.etree.ElementTree import Element, tostring

from latex2mathml.converter import convert_to_element

from serve_app.rendering.markdown.letters import styled

_TAGS = """
    math mrow mi mn mo mtext mspace mfrac msqrt mroot msub msup msubsup munder mover
    munderover mtable mtr mtd mpadded mphantom mstyle menclose
"""
TAGS = frozenset(_TAGS.split())
_ATTRIBUTES = """
    accent accentunder columnalign columnlines columnspacing depth display displaystyle fence
    form height largeop linethickness lspace mathbackground mathcolor mathsize mathvariant
    maxsize minsize movablelimits notation rowlines rowspacing rspace scriptlevel separator
    stretchy symmetric voffset width
"""
ATTRIBUTES = frozenset(_ATTRIBUTES.split())
MAX_LATEX = 10_000  # characters
# What latex2mathml does not know, by what it knows.
_ENVIRONMENT = re.compile(r"\\(begin|end)\{([a-z]+)\*?\}")
_KNOWN = {
    **dict.fromkeys(("align", "aligned", "eqnarray"), "split"),
    **dict.fromkeys(("gather", "gathered", "multline"), "matrix"),
    "dcases": "cases",
    "equation": "",
}
_UPRIGHT = re.compile(r"\\mathrm\s*\{([A-Za-z]+)\}")  # one letter would become italic
_VALUE = re.compile(r"#?[\w .+%-]{1,64}")
_LENGTH = re.compile(r"([+-]?[\d.]+)([a-z%]*)")
# How much of a unit is an em or less. A longer length than MAX_EM would hide other text, as would
# one further back than MIN_EM.
_UNITS = {"em": 1, "ex": 2, "in": 0.2, "cm": 0.5, "mm": 5, "pc": 1, "pt": 12, "px": 16, "mu": 18}
MIN_EM, MAX_EM = -1, 10
_LENGTH_NAMES = """
    depth height lspace mathsize maxsize minsize rspace voffset width
"""
_LENGTHS = frozenset(_LENGTH_NAMES.split())


def mathml(latex: str, *, is_display: bool) -> str | None:
    """`latex` as a `math` element; None if it cannot be read."""
    if len(latex) > MAX_LATEX:
        return None
    try:
        tree = convert_to_element(_known(latex), display="block" if is_display else "inline")
    except Exception:  # of many kinds, from its own to IndexError and RecursionError
        return None
    for element in tree.iter():
        _mend(element)
    if not is_display:
        del tree.attrib["display"]
    return tostring(tree, encoding="unicode")


def _known(latex: str) -> str:
    """`latex` in commands that latex2mathml knows."""

    def known(found: re.Match[str]) -> str:
        name = _KNOWN.get(found[2])
        return found[0] if name is None else f"\\{found[1]}{{{name}}}" if name else ""

    return _UPRIGHT.sub(r"\\text{\1}", _ENVIRONMENT.sub(known, latex))


def _mend(element: Element) -> None:
    element.attrib = {
        name: value for name, value in element.attrib.items() if _is_kept(name, value)
    }
    if element.text:
        text = unescape(element.text)
        element.text, is_styled = styled(text, element.get("mathvariant", ""))
        if is_styled:
            del element.attrib["mathvariant"]


def _is_kept(name: str, value: str) -> bool:
    if name not in ATTRIBUTES or not _VALUE.fullmatch(value):
        return False
    return name not in _LENGTHS or _is_short(value)


def _is_short(length: str) -> bool:
    """Whether it is a word, a share of at most 300 %, or a length within the bounds."""
    match = _LENGTH.fullmatch(length)
    if match is None:
        return length.isalpha()
    try:
        size = float(match[1])
    except ValueError:
        return False
    if match[2] in ("", "%"):
        return 0 <= size <= (300 if match[2] else 3)
    return match[2] in _UNITS and MIN_EM <= size / _UNITS[match[2]] <= MAX_EM
