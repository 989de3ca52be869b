"""Tests that need a program of the machine: they skip without it, and the run ends by saying so.

`@pytest.mark.needs("redis-server")` names the program. With `CI=true` such a test fails instead:
there everything has to be tested.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator

import pytest

_MISSING = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_MISSING] = Counter()


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for program in marker.args:
            if shutil.which(program):
                continue
            if os.environ.get("CI") == "true":
                pytest.fail(f"{program} is not installed", pytrace=False)
            item.config.stash[_MISSING][program] += 1
            pytest.skip(f"{program} is not installed")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Prints below everything else, so that the end of a long run shows it."""
    yield
    for program, count in session.config.stash[_MISSING].items():
        print(f"NOT TESTED, for {program} is not installed: {count} tests")
