"""A rank above 0 as a child process: how it is started, and what it runs.

    parent                          child
                    <------------   UP       modules imported
      RankSpec      ------------>            both join the group now, and load
                    <------------   READY    shard loaded (or the error message)
                                    prepare(), as rank 0 does
      num_blocks    ------------>   worker_loop() until STOP
      ...closed     ------------>   exits, whatever it is doing

Each side also notices the other's death by the pipe: it reads as closed as soon as the process
is gone, even by SIGKILL. A plain subprocess, not `multiprocessing`: that would import the
caller's main module again, which fails for a script without a main guard or one from stdin.
"""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from moss_tp.errors import EngineDeadError

UP, READY = "up", "ready"
STOP_GRACE_S = 10


class RankProcess:
    """The parent's handle of one rank."""

    def __init__(self, rank: int, num_threads: int) -> None:
        self.rank = rank
        self.connection, childs = Pipe()
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "OMP_NUM_THREADS": str(num_threads),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moss_tp.engine.running.rank_process", str(childs.fileno())],
            env=environment,
            stdin=subprocess.DEVNULL,
            pass_fds=(childs.fileno(),),
        )
        childs.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def expect(self, message: str) -> None:
        """Waits for `message`; EngineDeadError with the rank's error message when it fails."""
        received = self.last_message()
        if received != message:
            raise EngineDeadError(f"rank {self.rank} did not start: {received}")

    def last_message(self) -> str:
        """Waits for the rank's next message; its exit status if it exits without one."""
        try:
            return str(self.connection.recv())
        except (EOFError, OSError):
            return f"exit status {self._process.wait()}"

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int:
        """Exit status of a rank that is stopping; kills it after STOP_GRACE_S."""
        try:
            return self._process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def main(connection: Connection) -> None:
    """What the child runs."""
    # Ctrl-C reaches the whole foreground process group, but the parent ends its ranks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    inbox: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, inbox), daemon=True).start()
    # Imported only now: it takes seconds, during which `_receive` watches the parent already.
    from moss_tp.engine.running.worker import build_rank, worker_loop

    connection.send(UP)
    try:
        runner = build_rank(inbox.get())
        connection.send(READY)
        runner.prepare()
        worker_loop(runner, inbox.get())
        runner.group.close()
    except Exception as error:
        # The parent reports it, if it still exists.
        with suppress(OSError):
            connection.send(str(error) or repr(error))
        sys.exit(1)
    os._exit(0)  # nothing to flush, and a regular interpreter shutdown takes a second


def _receive(connection: Connection, inbox: "SimpleQueue[Any]") -> None:
    """Passes the parent's messages on; ends this process when the parent is gone."""
    try:
        while True:
            inbox.put(connection.recv())
    except (EOFError, OSError):
        os._exit(1)


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))
