"""A rank above 0 as a Ray actor. It knows only its own spec; rank 0 leads it by collectives.

Importing this imports no torch, which takes seconds: the actor does that while it starts, and
whoever starts it has that time for its own.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moss_tp.engine.running.model_runner import ModelRunner
    from moss_tp.engine.running.worker import RankSpec


class TPWorker:
    """Built, then following. A call that fails tells rank 0 that the group is broken."""

    def __init__(self) -> None:
        import moss_tp.engine.running.worker  # noqa: F401

        self._runner: ModelRunner | None = None

    def pid(self) -> int:
        """The process, which is ready to build once it answers."""
        return os.getpid()

    def build(self, spec: "RankSpec") -> None:
        """Joins the group and loads this rank's shard; rank 0 must be building too."""
        from cluster.ranks.threads import use_fair_threads
        from moss_tp.engine.running.worker import build_rank

        use_fair_threads(spec.config)
        self._runner = build_rank(spec)

    def follow(self, num_blocks: int) -> None:
        """Runs steps until rank 0 says stop. While the group is whole this does not return."""
        from moss_tp.engine.running.worker import follow

        if self._runner is None:
            raise RuntimeError("follow before build")
        follow(self._runner, num_blocks)
