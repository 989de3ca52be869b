r"""Where formulas are in markdown: `$…$` and `\(…\)` in a line, `$$…$$` and `\[…\]` on their own.

A formula holds no blank line. One that begins a line is a block, up to a line that ends with it,
so that its `+ b` is no list and its `---` no heading. Of a text that still grows, nobody knows yet
whether a formula that has not ended is one: `UNDECIDED` in the environment is the first such line.
"""

import re

from markdown_it import MarkdownIt
from markdown_it.ruler import RuleOptionsType
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline

BLOCK, DISPLAY, INLINE = "math_block", "math_display", "math_inline"
UNDECIDED, NUM_LINES = "undecided", "num_lines"

_CLOSERS = {"$$": "$$", r"\[": r"\]"}
_BRACKETS = {r"\(": (r"\)", INLINE), r"\[": (r"\]", DISPLAY)}
_AFTER = re.compile(r"[ \t]*[.,;:!?。，；：！？、]?[ \t]*\Z")
_DOLLARS = re.compile(
    r"""
      \$\$ (?P<display> (?: \\. | [^$\\] )+ ) \$\$
    | (?<!\d) \$ (?! [\s$] ) (?P<inline> (?: \\. | [^$\\\n] )+ ) (?<! \s ) \$ (?!\d)
    """,
    re.VERBOSE | re.DOTALL,
)


def add_formulas(parser: MarkdownIt) -> None:
    """Teaches `parser` the tokens BLOCK, DISPLAY and INLINE, whose content is LaTeX."""
    ends: RuleOptionsType = {"alt": ["paragraph", "reference", "blockquote", "list"]}
    parser.block.ruler.before("fence", BLOCK, _block, ends)
    parser.inline.ruler.before("escape", INLINE, _inline)


def _inline(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] == "$":
        kind, content, end = _between_dollars(state.src, state.pos, state.posMax)
    elif state.src[state.pos] == "\\":
        kind, content, end = _between_brackets(state.src, state.pos, state.posMax)
    else:
        return False
    if not content.strip():
        return False
    if not silent:
        state.push(kind, "math", 0).content = content
    state.pos = end
    return True


def _between_dollars(text: str, start: int, end: int) -> tuple[str, str, int]:
    """The kind, content and end of the formula at `start`; no content if there is none."""
    found = _DOLLARS.match(text, start, end)
    if found is None:
        return INLINE, "", start
    kind = DISPLAY if found["display"] else INLINE
    return kind, found["display"] or found["inline"], found.end()


def _between_brackets(text: str, start: int, end: int) -> tuple[str, str, int]:
    closer, kind = _BRACKETS.get(text[start : start + 2], ("", INLINE))
    last = text.find(closer, start + 2, end) if closer else -1
    return kind, text[start + 2 : max(last, 0)], last + 2


def _block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    if state.is_code_block(start):
        return False
    first = state.bMarks[start] + state.tShift[start]
    closer = _CLOSERS.get(state.src[first : first + 2])
    if closer is None:
        return False
    last, lines = _content(state, start, end, closer)
    if last is None:
        return False
    if not silent:
        token = state.push(BLOCK, "math", 0)
        token.block = True
        token.content = "\n".join(lines)
        token.map = [start, last + 1]
        state.line = last + 1
    return True


def _content(state: StateBlock, start: int, end: int, closer: str) -> tuple[int | None, list[str]]:
    """The formula's last line, and its lines without delimiters. None: it is none, or not yet."""
    lines: list[str] = []
    for number in range(start, end):
        is_inside = number == start or state.sCount[number] >= state.blkIndent
        if not is_inside or state.isEmpty(number):
            return None, []
        line = state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]]
        text, closing, after = line[2 * (number == start) :].partition(closer)
        lines.append(text)
        if closing:
            is_whole = any(map(str.strip, lines)) and _AFTER.match(after)
            lines[-1] += after.strip()
            return (number if is_whole else None), lines
    if end >= state.env.get(NUM_LINES, end + 1):
        state.env[UNDECIDED] = min(start, state.env.get(UNDECIDED, start))
    return None, []
