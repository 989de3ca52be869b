"""The model of the store finds what it is there to find: each planted bug makes it fail."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import pytest
from _pytest.outcomes import Failed
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from serve_app.sessions import catalogue_scripts, scripts
from serve_app.store.script import Script
from tests.serve_app.sessions.test_store_model import StoreMachine
from tests.serve_app.store_server import StoreServer

OWNER = "redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1]"
BUGS: Mapping[str, tuple[ModuleType, str, str, str]] = {
    "a load without an owner check": (scripts, "LOAD", OWNER, "false"),
    "a begin without an owner check": (scripts, "BEGIN", "owner and owner ~= ARGV[1] or", ""),
    "a commit without an owner check": (scripts, "COMMIT", "owner and owner ~= ARGV[1]", "false"),
    "a patch without an owner check": (catalogue_scripts, "PATCH", OWNER, "false"),
    "a feedback without an owner check": (catalogue_scripts, "FEEDBACK", OWNER, "false"),
    "no fencing": (scripts, "COMMIT", "held ~= mine", "false"),
    "no look at the key": (scripts, "COMMIT", "if not turn then", "if true then"),
    "no look at the length": (scripts, "COMMIT", "~= tonumber(ARGV[4])", "== -1"),
    "a commit on a chat that is gone": (scripts, "COMMIT", "return 'gone'", "return nil"),
    "two leases at a time": (scripts, "BEGIN", "held ~= ARGV[3]", "false"),
    "an active turn that is not there": (catalogue_scripts, "PATCH", "== 0", "== 2"),
    "a lease that a commit leaves": (scripts, "COMMIT", "redis.call('DEL', KEYS[7])", "return 0"),
}


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[StoreServer]:
    with StoreServer(tmp_path) as server:
        yield server


@pytest.mark.chaos
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(
    bug: str, own_store: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, name, old, new = BUGS[bug]
    text = getattr(module, name)._text
    assert text.count(old) == 1
    monkeypatch.setattr(module, name, Script(text.replace(old, new)))
    StoreMachine.server = own_store
    limits = settings(
        max_examples=1000,
        stateful_step_count=40,
        deadline=None,
        phases=[Phase.generate],
        database=None,
        report_multiple_bugs=False,
    )
    with pytest.raises((Exception, Failed)):  # pytest's own are no Exception
        run_state_machine_as_test(StoreMachine, settings=limits)
