"""The error of a benchmark whose server fails."""

from moss_tp.errors import MossError


class BenchError(MossError):
    """The server under test is unreachable, refuses, fails or does not count its tokens."""
