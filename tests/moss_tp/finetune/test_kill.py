"""Runs that are killed at any moment resume from a whole state and end with the same weights."""

import signal
import time
from dataclasses import replace
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

from moss_tp.finetune.manifest import Manifest
from moss_tp.finetune.output import OutputDir, step_of
from moss_tp.finetune.settings import FinetuneSettings
from tests.moss_tp.finetune.tiny_run import (
    Disturbance,
    are_equal,
    exported_weights,
    files_below,
    make_settings,
    run_processes,
    start_processes,
)
from tests.support.waiting import wait_until

# So many kills are spread over the calls to the file system; `make chaos` kills at each call.
PARTS = 7
# Steps that are saved take at least a quarter of a second then, on the fastest machine.
PAUSE_S = 0.01
FOREIGN = ("notes.txt", ".old/diary", ".model.new/a", "model.new/b", "step-00000002/c")


class Runs:
    """Runs with the same settings, each in an output directory of its own, and the weights and
    number of calls of one that nothing disturbed."""

    def __init__(self, directory: Path, num_processes: int) -> None:
        self._directory = directory
        self._num_processes = num_processes
        self._numbers = count()
        # States of steps 2 and 4, so the second replaces the first.
        per_process = dict.fromkeys(["batch_size"], 3 if num_processes == 1 else 1)
        self._settings = make_settings(directory, save_step=2, max_steps=4, **per_process)
        _write_foreign(self._settings.output_dir)  # an existing directory takes fewer calls
        self.undisturbed = self._run(self._settings)
        self.weights = exported_weights(self._settings)

    def _run(self, settings: FinetuneSettings, disturbance: Disturbance | None = None) -> list[int]:
        """The number of calls of each process."""
        ended = run_processes(settings, self._num_processes, disturbance)
        if disturbance is None:
            assert [(process.exit_code, process.error) for process in ended] == [
                (0, None)
            ] * self._num_processes
        else:
            assert ended[disturbance.rank].exit_code == -signal.SIGKILL
        return [process.num_calls for process in ended]

    def kill_and_resume(self, call: int, rank: int) -> None:
        """A killed run leaves a whole state or none; going on from it, the end is the same."""
        settings = replace(
            self._settings, output_dir=self._directory / f"killed-{next(self._numbers)}"
        )
        _write_foreign(settings.output_dir)
        foreign = files_below(settings.output_dir)
        self._run(settings, Disturbance(call, rank))
        output = OutputDir(settings.output_dir)
        self._run(replace(settings, resume=bool(output.states())))
        assert are_equal(exported_weights(settings), self.weights)
        (state,) = output.states()
        assert step_of(state) == 4
        assert {path.name for path in output.state.iterdir()} == {"run.json", state.name}
        now = files_below(settings.output_dir)
        assert {path: now.get(path) for path in foreign} == foreign


def _write_foreign(directory: Path) -> None:
    """What a user may have beside the run's own files."""
    for name in FOREIGN:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(f"the user's {name}")


@pytest.fixture(scope="module", params=[1, 2])
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"), request.param)


@pytest.mark.parametrize("part", range(PARTS))
def test_a_run_killed_between_calls_to_the_file_system_resumes(runs: Runs, part: int) -> None:
    """At moments spread over the whole run, in each process."""
    rank = part % len(runs.undisturbed)
    runs.kill_and_resume(1 + runs.undisturbed[rank] * part // PARTS, rank)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_a_run_killed_at_each_call_to_the_file_system_resumes(runs: Runs) -> None:
    for rank, num_calls in enumerate(runs.undisturbed):
        for call in range(1, num_calls + 1):
            runs.kill_and_resume(call, rank)


def kill_at_random(settings: FinetuneSettings, num_processes: int, rng: Random) -> None:
    """Starts or resumes a run, and kills its processes some time after it has saved a state."""
    output = OutputDir(settings.output_dir)
    before = output.states()
    with TemporaryDirectory() as directory:
        resumed = replace(settings, resume=bool(before))
        processes = start_processes(resumed, num_processes, Path(directory), pause_s=PAUSE_S)
        wait_until(lambda: _latest(output) > _step(before) or _any_ended(processes), 120)
        time.sleep(rng.uniform(0, 0.5))
        assert not _any_ended(processes)
        for process in rng.sample(processes, len(processes)):
            process.kill()
        for process in processes:
            process.join()
    state = output.states()[-1]
    assert Manifest.read(state, step_of(state), num_processes).progress.step > _step(before)


def _latest(output: OutputDir) -> int:
    return _step(output.states())


def _step(states: list[Path]) -> int:
    return step_of(states[-1]) if states else 0


def _any_ended(processes: list[BaseProcess]) -> bool:
    return any(not process.is_alive() for process in processes)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("num_processes", [1, 2])
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.chaos)])
def test_a_run_killed_at_random_moments_ends_as_if_it_had_not_been(
    tmp_path: Path, num_processes: int, kills: int
) -> None:
    """It resumes from a whole state after every kill, and loses no step that was saved."""
    size = 3 if num_processes == 1 else 1
    settings = make_settings(tmp_path, batch_size=size, epochs=80, max_steps=15 * kills)
    settings = replace(settings, save_step=1000, eval_step=1000)
    killed = replace(settings, output_dir=tmp_path / "killed", save_step=1)
    _write_foreign(killed.output_dir)
    foreign = files_below(killed.output_dir)
    rng = Random(kills)
    for _ in range(kills):
        kill_at_random(killed, num_processes, rng)
    for one in (replace(killed, resume=True, save_step=1000), settings):
        ended = run_processes(one, num_processes)
        assert [(process.exit_code, process.error) for process in ended] == [
            (0, None)
        ] * num_processes
    assert are_equal(exported_weights(killed), exported_weights(settings))
    now = files_below(killed.output_dir)
    assert {path: now.get(path) for path in foreign} == foreign
