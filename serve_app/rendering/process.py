"""A rendering worker as the ingress sees it: a process that is started, asked and killed.

It gets no environment but what Python needs: the server's secrets are not there to be found.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from serve_app.rendering.frames import LENGTH_BYTES, READY, length, pack, unpack

START_S = 15.0
COMMAND = (sys.executable, "-m", "serve_app.rendering.worker")
_ROOT = Path(__file__).parents[2]
_KEPT = ("PATH", "LD_LIBRARY_PATH", "LANG", "SYSTEMROOT", "PYTHONPATH")


class WorkerLostError(Exception):
    """The worker died, or was never there."""


class WorkerProcess:
    """Use `start`. Every method may raise WorkerLostError."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        assert process.stdin is not None and process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout

    @classmethod
    async def start(cls, command: Sequence[str] = COMMAND, within_s: float = START_S) -> Self:
        """Returns when it is ready. Raises WorkerLostError after `within_s`."""
        pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        try:
            made = await asyncio.create_subprocess_exec(
                *command,
                stdin=pipe,
                stdout=pipe,
                stderr=null,
                env=_environment(),
                start_new_session=True,
            )
        except OSError as error:
            raise WorkerLostError(str(error)) from error
        worker = cls(made)
        try:
            async with asyncio.timeout(within_s):
                if await worker.receive() != READY:
                    raise WorkerLostError("it says something else")
        except BaseException as error:
            await worker.kill()
            if isinstance(error, TimeoutError):
                raise WorkerLostError("it did not start") from error
            raise
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    async def send(self, message: Any) -> None:
        try:
            self._stdin.write(pack(message))
            await self._stdin.drain()
        except (OSError, RuntimeError) as error:
            raise WorkerLostError(str(error)) from error

    async def receive(self) -> Any:
        try:
            head = await self._stdout.readexactly(LENGTH_BYTES)
            return unpack(await self._stdout.readexactly(length(head)))
        except (OSError, EOFError, ValueError) as error:
            raise WorkerLostError(str(error)) from error

    async def kill(self) -> None:
        """At once, whatever it does; returns when it is gone."""
        with suppress(ProcessLookupError):
            self._process.kill()
        self._stdin.close()
        await self._process.wait()


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    paths = [str(_ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1"}
