"""How files of tests are given to processes, and what becomes of a test that kills its own.

pytest-xdist hands files out by the number of their tests, so that those of one test come last, all
together: servers that start, wait and have time limits. Here files of many tests and of few take
turns. And it gives what a dead process had not done to another one, beginning with the test that
killed it: one that always does would kill process after process.
"""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController


class MixedFiles(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    _takes_few = True

    def _assign_work_unit(self, node: WorkerController) -> None:
        if self._takes_few:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        self._takes_few = not self._takes_few
        super()._assign_work_unit(node)

    def _reschedule(self, node: WorkerController) -> None:
        """A process runs a test when it knows the next one, or that there is none. xdist gives the
        one that replaces another a single file, which may have a single test."""
        super()._reschedule(node)
        while self.workqueue and not node.shutting_down and self._num_left(node) < 2:
            self._assign_work_unit(node)

    def _num_left(self, node: WorkerController) -> int:
        num_left: int = self._pending_of(self.assigned_work[node])
        return num_left

    def remove_node(self, node: WorkerController) -> str | None:
        """The test that was running, if this process was not done: it died of that."""
        crashed, work = None, self.assigned_work[node]
        for unit in work.values():
            for test, is_done in unit.items():
                if crashed is None and not is_done:
                    crashed, unit[test] = str(test), True
        for file in [file for file, unit in work.items() if all(unit.values())]:
            del work[file]  # else it is handed out again, and what waits for its end waits for ever
        super().remove_node(node)
        return crashed


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> MixedFiles | None:
    """None where files are not kept together: then xdist has its own."""
    return MixedFiles(config, log) if config.option.dist == "loadfile" else None
