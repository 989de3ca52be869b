"""The parent's handle of a rank: a child that dies, hangs or loses its parent while it starts."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from moss_tp.engine.running import rank_process
from moss_tp.engine.running.rank_process import UP, RankProcess
from moss_tp.errors import EngineDeadError


@pytest.fixture
def rank() -> Iterator[RankProcess]:
    """Used before the child has imported torch."""
    process = RankProcess(3, num_threads=1)
    yield process
    process.kill()
    process.wait()
    process.connection.close()


def test_a_rank_that_dies_while_it_starts_is_named_with_its_status(rank: RankProcess) -> None:
    rank.kill()
    with pytest.raises(EngineDeadError, match="rank 3 did not start: exit status -9"):
        rank.expect(UP)
    assert rank.wait() == -signal.SIGKILL


def test_a_rank_without_a_parent_ends_before_it_has_loaded_anything(
    rank: RankProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_process, "STOP_GRACE_S", 1)  # importing torch takes longer
    rank.connection.close()
    assert rank.wait() == 1


def test_a_rank_that_hangs_is_killed(rank: RankProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_process, "STOP_GRACE_S", 0.05)
    os.kill(rank.pid, signal.SIGSTOP)
    assert rank.wait() == -signal.SIGKILL


def test_a_rank_on_the_cpu_imports_nothing_of_cudas() -> None:
    """Its kernels need Triton, which a machine without a GPU need not have."""
    code = (
        "import sys, moss_tp.engine.running.local_executor\n"
        "found = [name for name in sys.modules if name.startswith('moss_tp.kernels.cuda')]\n"
        "sys.exit(str(found) if found or 'triton' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
