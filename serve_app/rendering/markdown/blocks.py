"""Where a reply's top-level blocks end, also while it grows.

A block of a growing text is closed once another follows it that begins on a complete line, before
any formula of which nobody knows yet whether it is one. What comes later changes nothing about it:
no rule of the parser looks back, and links cannot be defined elsewhere. So the text after it can be
cut on its own.
"""

import re
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token

from serve_app.rendering.markdown.formulas import NUM_LINES, UNDECIDED

# A "\r" at the very end may be the first half of a line's end.
_LINE_END = re.compile(r"\r\n|\n|\r(?!\Z)")


def cut(parser: MarkdownIt, text: str, *, is_whole: bool) -> list[int]:
    """The offsets at which blocks of `text` end: all blocks of a whole text, else those that are
    closed. Blank lines after a block are of it."""
    line_starts = [0, *(found.end() for found in _LINE_END.finditer(text))]
    lines = text if is_whole else text[: line_starts[-1]]
    env = {} if is_whole else {NUM_LINES: len(line_starts) - 1}
    starts = _starts(parser, lines, env)
    undecided = env.get(UNDECIDED, len(line_starts))
    ends = [line_starts[after] for _, after in pairwise(starts) if after <= undecided]
    return [*ends, len(text)] if is_whole and starts else ends


def _starts(parser: MarkdownIt, text: str, env: dict[str, int]) -> list[int]:
    """The lines on which top-level blocks begin."""
    tokens: list[Token] = []
    source = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")
    parser.block.parse(source, parser, env, tokens)
    return [t.map[0] for t in tokens if t.level == 0 and t.nesting >= 0 and t.map is not None]
