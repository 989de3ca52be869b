"""A block of markdown as clean HTML."""

from collections.abc import Sequence
from html import escape
from typing import Any

from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from serve_app.rendering.markdown.cleaning import clean
from serve_app.rendering.markdown.code import code_block
from serve_app.rendering.markdown.formulas import BLOCK, DISPLAY, INLINE
from serve_app.rendering.markdown.links import is_safe_link
from serve_app.rendering.markdown.mathml import mathml
from serve_app.rendering.markdown.parser import CITATION, create_parser


class Markup:
    """Renders blocks. Keeps nothing between them."""

    def __init__(self) -> None:
        self.parser = create_parser()
        for kind, rule in _RULES.items():
            self.parser.add_render_rule(kind, rule)

    def html(self, markdown: str) -> str:
        """It takes as long as it takes, and may raise anything: see `worker`."""
        return clean(str(self.parser.render(markdown)))


def _code(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    return code_block(tokens[index].content, tokens[index].info)


def _citation(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    return f'<sup class="cite">{int(tokens[index].content)}</sup>'


def _image(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    """A link to the picture; in a link, what it shows in words."""
    url, token = str(tokens[index].attrs.get("src", "")), tokens[index]
    words = escape(token.content or url)
    depth = sum((t.type == "link_open") - (t.type == "link_close") for t in tokens[:index])
    if depth > 0 or not is_safe_link(url):
        return words
    return f'<a href="{escape(url)}">{words}</a>'


def _cell(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    """A cell's alignment as a class: styles are not allowed in the page."""
    token = tokens[index]
    aligned = str(token.attrs.get("style", "")).rpartition(":")[2]
    return f'<{token.tag} class="{aligned}">' if aligned else f"<{token.tag}>"


def _formula(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    token = tokens[index]
    latex = token.content.strip()
    inside = mathml(latex, is_display=token.type != INLINE)
    if inside is None:
        inside = f'<code class="tex">{escape(latex)}</code>'
    if token.type == BLOCK:
        return f'<div class="math">{inside}</div>\n'
    return f'<span class="math">{inside}</span>' if token.type == DISPLAY else inside


def _deleted(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    return "<del>" if tokens[index].nesting > 0 else "</del>"


_RULES = {
    "fence": _code,
    "code_block": _code,
    "image": _image,
    "th_open": _cell,
    "td_open": _cell,
    "s_open": _deleted,
    "s_close": _deleted,
    CITATION: _citation,
    **dict.fromkeys((BLOCK, DISPLAY, INLINE), _formula),
}
