"""A thread that notices the first rank that ends, from the moment when all are loaded."""

import threading
from collections.abc import Callable

from moss_tp.errors import EngineDeadError

REASON_S = 2.0  # a rank's own message comes about when its peers notice that it is gone


class Sentinel:
    """`wait` returns why a rank has ended, once one has, or None if all have ended well.

    `on_loss` is called then, in the thread, or by `redirect`.
    """

    def __init__(self, wait: Callable[[], str | None], on_loss: Callable[[str], None]) -> None:
        self._wait = wait
        self._on_loss = on_loss
        self._reason: str | None = None
        self._lock = threading.Lock()  # guards the two above
        self._thread = threading.Thread(target=self._run, name="moss-ranks", daemon=True)
        self._thread.start()

    def redirect(self, on_loss: Callable[[str], None]) -> None:
        """Calls this one from now on; at once where a rank is lost already."""
        with self._lock:
            self._on_loss, reason = on_loss, self._reason
        if reason is not None:
            on_loss(reason)

    def explain(self, error: BaseException) -> BaseException:
        """What to raise for an error of rank 0: a collective only says that a rank is gone, that
        rank says why."""
        if isinstance(error, RuntimeError):
            self._thread.join(REASON_S)
        return error if self._reason is None else EngineDeadError(self._reason)

    def join(self) -> None:
        """Once all ranks have ended."""
        self._thread.join()

    def _run(self) -> None:
        reason = self._wait()
        if reason is None:
            return
        with self._lock:
            self._reason, on_loss = reason, self._on_loss
        on_loss(reason)
