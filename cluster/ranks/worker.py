"""A rank above 0 as a Ray actor.

Importing this module imports no torch, which takes seconds: the actor does that while it starts,
and its creator can do other work in the meantime.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moss_tp.engine.running.runner import Runner
    from moss_tp.engine.running.worker import RankSpec


class TPWorker:
    """First `build`, then `prepare`, then `run_loop`. When a call fails, the group is broken."""

    def __init__(self) -> None:
        import moss_tp.engine.running.worker  # noqa: F401

        self._runner: Runner | None = None

    def pid(self) -> int:
        """The process id; once it is answered, the process is ready to build."""
        return os.getpid()

    def build(self, spec: "RankSpec") -> None:
        """Joins the group and loads this rank's shard; rank 0 must be building too."""
        from moss_tp.engine.running.worker import build_rank

        self._runner = build_rank(spec)

    def prepare(self) -> None:
        """See `Runner.prepare`; rank 0 must be choosing the number of blocks."""
        if self._runner is None:
            raise RuntimeError("prepare before build")
        self._runner.prepare()

    def run_loop(self, num_blocks: int) -> None:
        """Runs rank 0's steps until it says STOP. Does not return while the group is alive."""
        from moss_tp.engine.running.worker import worker_loop

        if self._runner is None:
            raise RuntimeError("run_loop before build")
        worker_loop(self._runner, num_blocks)
