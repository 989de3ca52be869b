"""Tests of a file run in one process, and one that kills its process is not run again.

pytest-xdist gives what a dead process had not done to another one, and that begins with the test
that killed it: one that always does would kill process after process.
"""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController


class CrashedOnce(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    def remove_node(self, node: WorkerController) -> str | None:
        """The test that was running, if this process was not done: it died of that."""
        crashed = None
        for unit in self.assigned_work[node].values():
            for test, is_done in unit.items():
                if crashed is None and not is_done:
                    crashed, unit[test] = str(test), True
        super().remove_node(node)
        return crashed


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> CrashedOnce | None:
    """None where files are not kept together: then xdist has its own."""
    return CrashedOnce(config, log) if config.option.dist == "loadfile" else None
