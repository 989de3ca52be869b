"""Emphasis in Chinese and Japanese, where no spaces stand around words.

CommonMark wants a space or punctuation outside of `**` that has punctuation inside, so
`**重点：**内容` would stay as it is. Here such a character outside is as good as punctuation.
"""

from markdown_it import MarkdownIt
from markdown_it.common.utils import isWhiteSpace
from markdown_it.parser_inline import ParserInline
from markdown_it.rules_inline.state_inline import Scanned, StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType

_FIRST = "\u2e80"  # of East Asian characters, more or less


class _State(StateInline):
    def scanDelims(self, start: int, canSplitWord: bool) -> Scanned:
        scanned = super().scanDelims(start, canSplitWord)
        if not canSplitWord:
            return scanned
        end = start + scanned.length
        before, after = self.src[max(start - 1, 0) : start], self.src[end : end + 1]
        can_open = scanned.can_open or (before >= _FIRST and not _is_space(after))
        can_close = scanned.can_close or (after >= _FIRST and not _is_space(before))
        return Scanned(can_open, can_close, scanned.length)


class EastAsianInline(ParserInline):
    def parse(self, src: str, md: MarkdownIt, env: EnvType, tokens: list[Token]) -> list[Token]:
        state = _State(src, md, env, tokens)
        self.tokenize(state)
        for rule in self.ruler2.getRules(""):
            rule(state)
        return state.tokens


def _is_space(char: str) -> bool:
    """Or the end of the text."""
    return not char or isWhiteSpace(ord(char))
