"""Titles and readable text of Markdown and HTML; scripts, styles and navigation are left out.

It takes text and returns text; nothing is fetched or run. HTML is parsed by lexbor, Markdown by
markdown-it.
"""

import re
from functools import cache
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token
from selectolax.lexbor import LexborHTMLParser

from plugins_svc.web_search.encodings import UnreadableError

MAX_DEPTH = 20_000  # lexbor takes time by its square, here a second or two

_LEFT_OUT = (
    "script, style, template, noscript, svg, iframe, object, nav, aside, footer, "
    "[role=navigation], [hidden]"
)
_BLOCKS = (
    "p, div, br, hr, h1, h2, h3, h4, h5, h6, li, dt, dd, tr, table, ul, ol, dl, pre, blockquote, "
    "section, article, header, main, figure, figcaption, address, details, summary, form, option"
)
_CELLS = "td, th"
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(?:(.*?)\n)?(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_TITLE_LINE = re.compile(r"^title:[ \t]*(.+?)[ \t]*$", re.MULTILINE)
# Inline tags to leave out; any other `<word>` is text.
_TAG = re.compile(
    r"</?(?:a|abbr|b|big|br|center|code|del|div|em|font|i|img|ins|kbd|mark|p|s|small|span|strong|"
    r"sub|sup|u|video|audio|source|details|summary|picture)\b|<!--",
    re.IGNORECASE,
)


# Elements that need an end tag; of the others, any number stands side by side.
_NESTED = re.compile(
    r"<(/?)(?!(?:area|base|br|col|dd|dt|embed|hr|img|input|li|link|meta|option|p|source|td|th|tr|"
    r"track|wbr|circle|ellipse|line|path|polygon|polyline|rect|stop|use)\b)[a-z]",
    re.IGNORECASE,
)


class Readable(NamedTuple):
    """`title` is empty if the document has none, `guess` if its encoding is certain."""

    title: str
    text: str
    guess: str = ""


def html_text(source: str) -> Readable:
    """The title and the text, with a line break around every block.

    UnreadableError beyond MAX_DEPTH.
    """
    if _depth(source) > MAX_DEPTH:
        raise UnreadableError("nested too deeply")
    tree = LexborHTMLParser(source)
    title = tree.css_first("title")
    for node in tree.css(_LEFT_OUT):
        if node.tag not in ("html", "body"):  # a script may show them later
            node.decompose()
    for selector, space in ((_BLOCKS, "\n"), (_CELLS, " ")):
        for node in tree.css(selector):
            node.insert_before(space)
            node.insert_after(space)
    body = tree.body
    text = "" if body is None else body.text(deep=True, separator="", strip=False)
    return Readable(_folded("" if title is None else title.text()), text)


def markdown_text(source: str) -> Readable:
    """The first heading, or the front matter's title, and the text without markup."""
    front = _FRONT_MATTER.match(source)
    titled = _TITLE_LINE.search(front[1] or "") if front else None
    title = titled[1].strip("'\"") if titled else ""
    tokens = _markdown().parse(source[front.end() :] if front else source)
    lines: list[str] = []
    for index, token in enumerate(tokens):
        if token.type == "inline":
            lines.append("".join(map(_inline_text, token.children or ())))
            if not title and index and tokens[index - 1].type == "heading_open":
                title = lines[-1]
        elif token.type in ("fence", "code_block"):
            lines.append(token.content)
        elif token.type == "html_block":
            lines.append(html_text(token.content).text)
    return Readable(_folded(title), "\n".join(lines))


def _depth(source: str) -> int:
    """How deep elements are nested, at most."""
    depth = deepest = 0
    for tag in _NESTED.finditer(source):
        depth = max(0, depth - 1) if tag[1] else depth + 1
        deepest = max(deepest, depth)
    return deepest


def _inline_text(token: Token) -> str:
    if token.type in ("softbreak", "hardbreak"):
        return "\n"
    if token.type == "html_inline" and _TAG.match(token.content):
        return ""
    return token.content


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark").enable("table")


def _folded(text: str) -> str:
    return " ".join(text.split())
