"""A rank above 0 as a process of this machine: how it is started, and what it runs.

    parent                          child
                    <------------   UP       modules imported
      RankSpec      ------------>            both join the group now, and load
                    <------------   READY    shard loaded (or the one line that says why not)
      num_blocks    ------------>   follow() until STOP
      ...closed     ------------>   dies, whatever it is doing

The pipe is also each side's death watch: it reads as ended as soon as the other process is gone,
even by SIGKILL. A plain subprocess, not `multiprocessing`: that would import the caller's main
module again, which a script without a main guard, or one typed into a shell, does not survive.
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
    """The parent's handle on one rank."""

    def __init__(self, rank: int, num_threads: int) -> None:
        self.rank = rank
        self.connection, theirs = Pipe()
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "OMP_NUM_THREADS": str(num_threads),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moss_tp.engine.running.rank_process", str(theirs.fileno())],
            env=environment,
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
        )
        theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def expect(self, message: str) -> None:
        """Waits for `message`; EngineDeadError with the rank's own words when it fails."""
        said = self.last_words()
        if said != message:
            raise EngineDeadError(f"rank {self.rank} did not start: {said}")

    def last_words(self) -> str:
        """What the rank says next, waiting for it; its exit status where it says nothing."""
        try:
            return str(self.connection.recv())
        except (EOFError, OSError):
            return f"exit status {self._process.wait()}"

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int:
        """Exit status of a rank that was told to stop; kills one that does not."""
        try:
            return self._process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def main(connection: Connection) -> None:
    """What the child runs."""
    # Ctrl-C reaches the whole foreground group; it is the parent's to end its ranks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    inbox: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, inbox), daemon=True).start()
    # Only now, since it takes seconds, and the parent may be gone before they are over.
    from moss_tp.engine.running.worker import build_rank, follow

    connection.send(UP)
    try:
        runner = build_rank(inbox.get())
        connection.send(READY)
        follow(runner, inbox.get())
        runner.group.close()
    except Exception as error:
        # The parent's to report, where there still is one.
        with suppress(OSError):
            connection.send(str(error) or repr(error))
        sys.exit(1)
    os._exit(0)  # nothing to flush, and taking the interpreter down by hand takes a second


def _receive(connection: Connection, inbox: "SimpleQueue[Any]") -> None:
    """Passes on what the parent says, and ends this process when there is no parent."""
    try:
        while True:
            inbox.put(connection.recv())
    except (EOFError, OSError):
        os._exit(1)


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))
