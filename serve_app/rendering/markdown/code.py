"""Code with the classes of pygments' short names. A language is named, never guessed."""

import re
from html import escape

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.token import STANDARD_TYPES
from pygments.util import ClassNotFound

CLASSES = frozenset(name for name in STANDARD_TYPES.values() if name)
_LANGUAGE = re.compile(r"[\w+#.-]{1,32}")
_FORMATTER: HtmlFormatter[str] = HtmlFormatter(nowrap=True)


def code_block(code: str, info: str) -> str:
    """A block of code, whose language is the first word of `info`, if there is one."""
    word = info.split(maxsplit=1)[0] if info.strip() else ""
    language = word if _LANGUAGE.fullmatch(word) else ""
    named = f' data-lang="{escape(language)}"' if language else ""
    return f'<div class="code"{named}><pre><code>{_inside(code, language)}</code></pre></div>\n'


def _inside(code: str, language: str) -> str:
    if language:
        try:
            lexer = get_lexer_by_name(language.lower(), stripnl=False, ensurenl=False)
        except ClassNotFound:
            return escape(code)
        return highlight(code, lexer, _FORMATTER)
    return escape(code)
