"""Checks of a call's argument before the plugin gets it: what a spec names as `check_argument`."""

from collections.abc import Callable

# Returns the argument that the plugin gets, or None to refuse the call.
ArgumentCheck = Callable[[str], str | None]


def at_most(max_chars: int) -> ArgumentCheck:
    """Refuses an argument of more than `max_chars` characters."""
    return lambda argument: argument if len(argument) <= max_chars else None


def cut_to(max_chars: int) -> ArgumentCheck:
    """Keeps the first `max_chars` characters of an argument."""
    return lambda argument: argument[:max_chars]
