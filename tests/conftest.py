"""Tests that need a program of the machine: they skip without it, and the run ends by saying so.

`@pytest.mark.needs("redis-server")` names the program. With `CI=true` such a test fails instead:
there everything has to be tested. `@pytest.mark.gpu` skips without a CUDA device, also there, and
`@pytest.mark.variable("NAME")` without an environment variable.

Triton is imported in its interpreter's mode, on any machine, so that kernels run on CPU tensors.
What needs compiled kernels (`moss kernels`) drops the variable in processes of its own.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator

import pytest

from moss_tp.hardware.present import has_gpu

HAS_GPU = has_gpu()
os.environ["TRITON_INTERPRET"] = "1"

pytest_plugins = ["tests.scheduling"]

_MISSING = "missing"  # the name of a test's property
_num_untested: Counter[str] = Counter()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not HAS_GPU:
        item.user_properties.append((_MISSING, "a CUDA device"))
        pytest.skip("there is no CUDA device")
    for marker in item.iter_markers("variable"):
        if not os.environ.get(marker.args[0]):
            item.user_properties.append((_MISSING, marker.args[0]))
            pytest.skip(f"{marker.args[0]} is not set")
    for marker in item.iter_markers("needs"):
        for program in marker.args:
            if shutil.which(program):
                continue
            if os.environ.get("CI") == "true":
                pytest.fail(f"{program} is not installed", pytrace=False)
            item.user_properties.append((_MISSING, program))
            pytest.skip(f"{program} is not installed")


@pytest.fixture(autouse=True)
def _same_niceness() -> Iterator[None]:
    """The servers of later tests would inherit another one."""
    before = os.nice(0)
    yield
    assert os.nice(0) == before, "this test has made its process nicer"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Counts where all reports come together, however many processes run the tests."""
    if report.when == "setup":
        _num_untested.update(str(what) for name, what in report.user_properties if name == _MISSING)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Prints below everything else, so that the end of a long run shows it."""
    yield
    if hasattr(session.config, "workerinput"):
        return
    for program, count in _num_untested.items():
        print(f"NOT TESTED, for this machine has not got {program}: {count} tests")
