"""What a chat shows in a terminal: markdown that grows, with dim lines for what is beside it.

A markdown block is printed for good when the next one begins. Only the last one is drawn anew, so
a long reply scrolls by as any output does.
"""

from itertools import pairwise

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment
from rich.text import Text

from serve_app.cli.running.screen import MOSS
from serve_app.cli.running.untrusted import one_line, printable
from serve_app.client.citations import cited

REFRESHES_PER_S = 8
DIM = "dim"
_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])


class RichScreen:
    """A Screen on `console`."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, markup=False, emoji=False)
        self._tail = Tail()
        self._live: Live | None = None
        self._num_blocks = 0
        self._has_label = False

    def show(self, line: str) -> None:
        self._print(Text(printable(line)))

    def note(self, line: str) -> None:
        self._print(Text(f"({one_line(line)})", DIM))

    def fail(self, message: str) -> None:
        self._print(Text(f"moss: {one_line(message)}", "red"))

    def begin(self) -> None:
        self._tail, self._num_blocks, self._has_label = Tail(), 0, False
        self._live = Live(
            self._tail,
            console=self._console,
            transient=True,
            refresh_per_second=REFRESHES_PER_S,
            vertical_overflow="visible",
        )
        self._live.start()

    def status(self, line: str) -> None:
        self._tail.status = one_line(line)

    def aside(self, lines: str) -> None:
        self._close_tail()
        self._print(Text(printable(lines), DIM))

    def text(self, piece: str) -> None:
        if not self._has_label:
            self._print(Text(MOSS, "bold"))
            self._has_label = True
        self._tail.markdown += cited(printable(piece), r"\[{}\]")
        closed, self._tail.markdown = split_blocks(self._tail.markdown)
        for block in closed:
            self._print_block(block)

    def end(self, remark: str = "") -> None:
        if not self._has_label:
            self.text("")
        self.cut()
        if remark:
            self._print(Text(remark.strip(), DIM))

    def cut(self) -> None:
        self._close_tail()
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._num_blocks, self._has_label = 0, False

    def _close_tail(self) -> None:
        markdown, self._tail.markdown, self._tail.status = self._tail.markdown, "", ""
        if markdown.strip():
            self._print_block(markdown)

    def _print_block(self, markdown: str) -> None:
        if self._num_blocks:
            self._print(Text())
        self._num_blocks += 1
        self._tail.has_blocks = True
        self._print(ChatMarkdown(markdown))

    def _print(self, shown: Text | Markdown) -> None:
        """Lines of text are the terminal's to wrap: a URL that it wraps can be copied whole."""
        self._console.print(shown, soft_wrap=isinstance(shown, Text))


class Tail:
    """The block of a reply that still grows: its last lines, as many as there is room for."""

    def __init__(self) -> None:
        self.markdown = ""
        self.status = "..."
        self.has_blocks = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.markdown.strip():
            yield Text(self.status, DIM)
            return
        lines = console.render_lines(ChatMarkdown(self.markdown), options.update(height=None))
        if self.has_blocks:
            lines.insert(0, [])
        for line in lines[-max(1, console.height - 2) :]:
            yield from line
            yield Segment.line()


def split_blocks(markdown: str) -> tuple[list[str], str]:
    """The blocks that no further text can change, and the last one, which it can."""
    tops = [token for token in _PARSER.parse(markdown) if token.level == 0 and token.map]
    starts = [token.map[0] for token in tops if token.map]
    if len(starts) < 2:
        return [], markdown
    lines = markdown.split("\n")
    cuts = [0, *starts[1:]]
    blocks = ["\n".join(lines[start:end]) for start, end in pairwise(cuts)]
    return blocks, "\n".join(lines[cuts[-1] :])


class ChatMarkdown(Markdown):
    """Markdown as chats mean it: tags are text, and a line ends where its newline is.

    Where links lead is shown, not hidden behind their text.
    """

    def __init__(self, markup: str) -> None:
        super().__init__(markup, code_theme="ansi_dark", hyperlinks=False)
        self.parsed = _PARSER.parse(markup)
        for token in self.parsed:
            for child in token.children or ():
                if child.type == "softbreak":
                    child.type = "hardbreak"
