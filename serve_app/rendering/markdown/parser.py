"""Markdown as tokens: CommonMark, tables, strikethrough, bare links, formulas, citations; no HTML.

Definitions of links (`[a]: …`) are off: they would change blocks before them.
"""

import re

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline

from serve_app.rendering.markdown.emphasis import EastAsianInline
from serve_app.rendering.markdown.formulas import add_formulas
from serve_app.rendering.markdown.links import bare_link, is_safe_link

CITATION = "citation"
_CITATION = re.compile(r"<sup><\|([0-9]{1,4})\|></sup>")
_MAX_NESTING = 100  # two for each level of a list; what is deeper is left out


def create_parser() -> MarkdownIt:
    options = {"html": False, "breaks": True, "maxNesting": _MAX_NESTING}
    parser = MarkdownIt("zero")
    parser.inline = EastAsianInline()
    parser.configure("commonmark", options)
    parser.enable(["table", "strikethrough"])
    parser.disable(["reference", "html_block", "html_inline"])
    add_formulas(parser)
    parser.inline.ruler.before("autolink", CITATION, _citation)
    parser.inline.ruler.before("autolink", "bare_link", bare_link)
    parser.validateLink = is_safe_link  # type: ignore[method-assign]
    parser.normalizeLinkText = str  # type: ignore[assignment]  # else letters that look like others
    return parser


def _citation(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] != "<":
        return False
    found = _CITATION.match(state.src, state.pos, state.posMax)
    if found is None:
        return False
    if not silent:
        state.push(CITATION, "sup", 0).content = found[1]
    state.pos = found.end()
    return True
