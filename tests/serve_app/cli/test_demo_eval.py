"""The exit status of `moss demo-eval`: whether both bars are met."""

import pytest
from click.testing import CliRunner

from serve_app.cli.demo_eval import command

FEW = ("--greedy", "--num-arithmetic", "8", "--num-memory", "4", "--num-lookups", "2")


@pytest.mark.parametrize(
    ("plugins", "told", "status"),
    [("calculator", "arithmetic: 8 of 8 right", 0), ("", "arithmetic: 0 of 8 right", 1)],
)
def test_the_status_says_whether_the_bars_are_met(plugins: str, told: str, status: int) -> None:
    """Without a calculator no sum is right."""
    shown = CliRunner().invoke(command, [*FEW, "--plugins", plugins])
    assert told in shown.output
    assert "memory: 4 of 4 right" in shown.output
    assert " of 2 right" in shown.output
    assert shown.exit_code == status


def test_a_plugin_that_is_none_is_refused() -> None:
    shown = CliRunner().invoke(command, ["--plugins", "compiler"])
    assert shown.exit_code == 2
    assert "there is no compiler" in shown.output
