"""An operator's hook on text: what users and clients send in, and what the model writes out.

    def hook(text: str, direction: str) -> str | None          # or async def; direction: in, out

It returns None, or the reason to refuse the text. A plain function runs in a thread of its own. A
hook that fails, answers otherwise or takes too long refuses, too: a filter that is broken does not
let everything through.
"""

import asyncio
import inspect
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any, Literal

from moss_tp.errors import ConfigError
from serve_app.errors import ContentRefusedError

logger = logging.getLogger(__name__)

Direction = Literal["in", "out"]
Hook = Callable[[str, Direction], Any]

TIMEOUT_S = 10.0
NUM_THREADS = 8
FAILURE = "it could not be checked"
_MAX_REASON = 200


class Moderation:
    """Asks `hook` about texts, for at most `timeout_s` each."""

    def __init__(self, hook: Hook, timeout_s: float = TIMEOUT_S) -> None:
        self._hook = hook
        # Threads of their own: a hook that hangs may hold up other hooks, and nothing else.
        self._threads = ThreadPoolExecutor(NUM_THREADS, "moderation")
        self._timeout_s = timeout_s

    async def reason(self, text: str, direction: Direction, within_s: float | None = None) -> str:
        """Why `text` is refused; empty if it may pass, as text without any character does.

        An answer that takes longer than `within_s` is none.
        """
        if not text:
            return ""
        timeout_s = self._timeout_s if within_s is None else min(within_s, self._timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                reason = await self._ask(text, direction)
        except Exception as error:
            # Not its message, which may quote the text.
            logger.warning("the moderation hook failed: %s", type(error).__name__)
            return FAILURE
        if reason is None:
            return ""
        if not isinstance(reason, str):
            logger.warning("the moderation hook answered a %s", type(reason).__name__)
            return FAILURE
        return reason[:_MAX_REASON] or "no reason was given"

    async def check_input(self, text: str, within_s: float | None = None) -> None:
        """Raises ContentRefusedError, with the reason, for text that came in."""
        if reason := await self.reason(text, "in", within_s):
            raise ContentRefusedError(f"the text was refused: {reason}")

    async def _ask(self, text: str, direction: Direction) -> object:
        if inspect.iscoroutinefunction(self._hook):
            return await self._hook(text, direction)
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._threads, self._hook, text, direction)
        return await answer if inspect.isawaitable(answer) else answer


def load_moderation(path: str | None) -> Moderation | None:
    """The hook at `module:function`, None for no path. Raises ConfigError if there is none."""
    if path is None:
        return None
    module, _, name = path.partition(":")
    if not module or not name.isidentifier():
        raise ConfigError(f"--moderation is MODULE:FUNCTION, not {path!r}")
    try:
        hook = getattr(import_module(module), name)
    except Exception as error:
        raise ConfigError(
            f"--moderation {path} cannot be imported ({type(error).__name__}: {error}); is its"
            " folder in PYTHONPATH?"
        ) from error
    if not callable(hook):
        raise ConfigError(f"--moderation {path} is not a function")
    return Moderation(hook)
