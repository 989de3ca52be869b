"""What a chat shows, as plain text: for pipes, files, and terminals that can do no more."""

from typing import Protocol

import click

from moss_tp.dialogue import MARKERS
from serve_app.cli.running.untrusted import one_line, printable
from serve_app.client.citations import cited

MOSS = f"{MARKERS['moss']} "


class Screen(Protocol):
    """Where notes and one reply after the other are shown. Texts may be untrusted."""

    def show(self, line: str) -> None:
        """A line of help."""
        ...

    def note(self, line: str) -> None:
        """A line of the program's own, such as `a new chat`."""
        ...

    def fail(self, message: str) -> None:
        """An error, which is one line."""
        ...

    def begin(self) -> None:
        """A reply begins."""
        ...

    def status(self, line: str) -> None:
        """What goes on while no text comes; it may be shown for as long, or not at all."""
        ...

    def aside(self, lines: str) -> None:
        """What is told beside the reply: thoughts, calls, sources."""
        ...

    def text(self, piece: str) -> None:
        """The next piece of the reply, in markdown."""
        ...

    def end(self, remark: str = "") -> None:
        """The reply is over, and has a place of its own even if it is empty."""
        ...

    def cut(self) -> None:
        """The reply goes no further: an error follows, or all of it once more."""
        ...


class PlainScreen:
    """Shows pieces of a reply as they come."""

    def __init__(self) -> None:
        self._has_text = self._is_mid_line = False

    def show(self, line: str) -> None:
        click.echo(printable(line))

    def note(self, line: str) -> None:
        click.echo(f"({one_line(line)})")

    def fail(self, message: str) -> None:
        click.echo(f"moss: {one_line(message)}", err=True)

    def begin(self) -> None:
        """Nothing: the label comes with the text."""

    def status(self, line: str) -> None:
        """Nothing: it could not be taken back."""

    def aside(self, lines: str) -> None:
        if self._is_mid_line:
            click.echo()
        self._is_mid_line = False
        click.echo(f"({printable(lines)})")

    def text(self, piece: str) -> None:
        shown = cited(printable(piece), "[{}]")
        click.echo(("" if self._has_text else MOSS) + shown, nl=False)
        self._has_text = self._is_mid_line = True

    def end(self, remark: str = "") -> None:
        if not self._has_text:
            self.text("")
        click.echo(remark, nl=False)
        self.cut()

    def cut(self) -> None:
        if self._is_mid_line:
            click.echo()
        self._has_text = self._is_mid_line = False
