"""Tells the user what the plugins answer from, once they know: web search reads its documents
while the server runs already.

A thread of its own asks, so that nothing waits for a slow plugin.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

POLL_S = 2
CALL_S = 10

# Asks one plugin: its line, maybe empty, or None if it does not know yet.
Ask = Callable[[], str | None]


@contextmanager
def plugin_notes(asks: Iterable[Ask], say: Callable[[str], None]) -> Iterator[None]:
    """While the block runs, says each plugin's line as soon as there is one."""
    ended = threading.Event()

    def tell() -> None:
        waiting = list(asks)
        while waiting and not ended.is_set():
            waiting = [ask for ask in waiting if not _has_told(ask, say)]
            ended.wait(POLL_S if waiting else 0)

    threading.Thread(target=tell, name="plugin-notes", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def remote_asks(app_name: str, plugins: Iterable[str]) -> list[Ask]:
    """How to ask each of the deployed `plugins`."""
    return [partial(_ask, app_name, name) for name in plugins]


def _has_told(ask: Ask, say: Callable[[str], None]) -> bool:
    try:
        note = ask()
    except Exception:  # its replica starts, or is being replaced: ask again
        return False
    if note:
        say(note)
    return note is not None


def _ask(app_name: str, plugin: str) -> str | None:
    from ray import serve

    handle = serve.get_deployment_handle(f"plugin_{plugin}", app_name)
    note: str | None = handle.note.remote().result(timeout_s=CALL_S)
    return note
