"""A quantization that is killed at any moment goes on, and writes the same bytes."""

import signal
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from moss_tp.quantize.output import Output
from moss_tp.quantize.settings import QuantizeSettings
from tests.moss_tp.quantize.tiny_run import contents, make_settings, run_apart

PARTS = 5  # so many kills are spread over the run


class Runs:
    """The bytes of an undisturbed run, and its number of calls to the file system."""

    def __init__(self, directory: Path) -> None:
        self.settings = make_settings(directory)
        exit_code, self.num_calls = run_apart(self.settings)
        assert exit_code == 0
        self.undisturbed = contents(self.settings.destination)
        self._numbers = count()

    def kill_and_go_on(self, call: int) -> None:
        name = f"killed-{next(self._numbers)}"
        settings = replace(self.settings, destination=self.settings.destination.with_name(name))
        assert run_apart(settings, kill_at=call)[0] == -signal.SIGKILL
        if not settings.destination.exists():  # else only leftovers were to be removed
            assert run_apart(settings)[0] == 0
            assert not Output(settings.destination).partial.exists()
        assert contents(settings.destination) == self.undisturbed


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("part", range(PARTS))
def test_a_killed_run_ends_with_the_same_bytes(runs: Runs, part: int) -> None:
    assert runs.num_calls > PARTS
    runs.kill_and_go_on(2 + (runs.num_calls - 2) * part // PARTS)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_a_run_killed_at_each_call_ends_with_the_same_bytes(runs: Runs) -> None:
    for call in range(1, runs.num_calls + 1):
        runs.kill_and_go_on(call)


def test_two_steps_are_killed_one_after_the_other(runs: Runs) -> None:
    """Work that was done is not done again: each run gets further than the one before."""
    settings: QuantizeSettings = replace(
        runs.settings, destination=runs.settings.destination.with_name("twice")
    )
    output = Output(settings.destination)
    reached = []
    for call in (runs.num_calls // 2, runs.num_calls // 3):
        assert run_apart(settings, kill_at=call)[0] == -signal.SIGKILL
        reached.append(output.layer() or 0)
    assert reached[0] < reached[1] or reached[1] == 2
    assert run_apart(settings)[0] == 0
    assert contents(settings.destination) == runs.undisturbed
