"""`moss demo-eval` exits with 0 only if arithmetic and memory meet their minimum."""

import pytest
from click.testing import CliRunner

from serve_app.cli.demo.evaluation import command

FEW = ("--greedy", "--num-arithmetic", "8", "--num-memory", "4", "--num-lookups", "2")


@pytest.mark.parametrize(
    ("plugins", "score", "status"),
    [("calculator", "arithmetic: 8 of 8 right", 0), ("", "arithmetic: 0 of 8 right", 1)],
)
def test_the_exit_status_follows_the_scores(plugins: str, score: str, status: int) -> None:
    """Without a calculator no sum is right."""
    shown = CliRunner().invoke(command, [*FEW, "--plugins", plugins])
    assert score in shown.output
    assert "memory: 4 of 4 right" in shown.output
    assert " of 2 right" in shown.output
    assert shown.exit_code == status


def test_an_unknown_plugin_is_a_usage_error() -> None:
    shown = CliRunner().invoke(command, ["--plugins", "compiler"])
    assert shown.exit_code == 2
    assert "no plugin compiler" in shown.output
