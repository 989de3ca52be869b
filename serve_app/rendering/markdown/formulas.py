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
_AFTER = re.compile(r"[ \t]*[.,;:!?。，；：！？、]?[ \t]*\Z")
_FORMULA = re.compile(
    r"""
      \$\$ (?P<dollars> (?: \\. | [^$\\] )+ ) \$\$
    | (?<!\d) \$ (?! [\s$] ) (?P<dollar> (?: \\. | [^$\\\n] )+ ) (?<! \s ) \$ (?!\d)
    | \\\( (?P<parentheses> .+? ) \\\)
    | \\\[ (?P<brackets> .+? ) \\\]
    """,
    re.VERBOSE | re.DOTALL,
)


def add_formulas(parser: MarkdownIt) -> None:
    """Teaches `parser` the tokens BLOCK, DISPLAY and INLINE, whose content is LaTeX."""
    ends: RuleOptionsType = {"alt": ["paragraph", "reference", "blockquote", "list"]}
    parser.block.ruler.before("fence", BLOCK, _block, ends)
    parser.inline.ruler.before("escape", INLINE, _inline)


def _inline(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] not in "$\\":
        return False
    found = _FORMULA.match(state.src, state.pos, state.posMax)
    if found is None:
        return False
    if not silent:
        is_display = found.lastgroup in ("dollars", "brackets")
        token = state.push(DISPLAY if is_display else INLINE, "math", 0)
        token.content = found[found.lastgroup or 0]
    state.pos = found.end()
    return True


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
