"""What became of a directory of documents: what was read, and what was left out and why."""

from collections import defaultdict
from pathlib import Path

from plugins_svc.web_search.documents import shown

MAX_NAMES = 3  # of the files left out for one reason


class IndexReport:
    """Counts of one run over `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._left_out: defaultdict[str, list[str]] = defaultdict(list)
        self._guessed: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self.num_documents = 0
        self.num_passages = 0
        self.is_complete = False
        self.has_stopped = False  # by an error, before it was complete

    @property
    def has_gaps(self) -> bool:
        """Whether a file was left out that its owner may miss, or nothing was found."""
        return self.num_documents == 0 or bool(self._left_out.keys() - {"hidden"})

    def leave_out(self, path: Path, reason: str) -> None:
        """Counts `path`, which may have been read in part."""
        self._left_out[reason].append(self._name(path))

    def read_as(self, path: Path, encoding: str) -> None:
        """`encoding` is a guess, so that its owner can tell a wrong one. May be called again."""
        self._guessed[encoding][self._name(path)] = None

    def line(self) -> str:
        """One line, for the operator."""
        read = f"{self.num_documents} documents ({self.num_passages} passages) in {self._directory}"
        if not self.is_complete:
            read = f"{'stopped' if self.has_stopped else 'still reading'}: {read}"
        for encoding, names in sorted(self._guessed.items()):
            read += f"; read as {_reason(encoding, list(names))}"
        if not self._left_out:
            return read
        reasons = (_reason(reason, names) for reason, names in sorted(self._left_out.items()))
        return f"{read}; left out: {'; '.join(reasons)}"

    def _name(self, path: Path) -> str:
        return " ".join(shown(path.relative_to(self._directory)).split())


def _reason(reason: str, names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return f"{reason}: {', '.join(names[:MAX_NAMES])}{more}"
