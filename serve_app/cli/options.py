"""Turns a list of click options into one decorator, so that commands can share them."""

from collections.abc import Callable
from typing import Any, TypeVar

Command = TypeVar("Command", bound=Callable[..., Any])
Option = Callable[[Any], Any]  # what click.option returns


def with_options(*options: Option) -> Callable[[Command], Command]:
    """A decorator that adds `options`; `--help` lists them in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
