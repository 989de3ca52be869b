"""`moss plugin run`: its names and options are those of the specs, its output is the model's."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from plugins_svc.registry import PLUGIN_NAMES, SPECS
from serve_app.cli.plugin import command


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["run", *arguments])


def test_help_lists_every_plugin_and_every_setting() -> None:
    shown = run("--help").output
    assert all(name in shown for name in PLUGIN_NAMES)
    settings = [setting for spec in SPECS for setting in spec.settings]
    assert settings
    for setting in settings:
        assert f"{setting.option} {setting.metavar}" in shown
        assert setting.help in " ".join(shown.split())


@pytest.mark.parametrize(
    ("arguments", "output", "status"),
    [
        (("calculator", "5^3"), "'125'\n", 0),
        (("calculator", "5^^3"), "'No result.'\n", 1),
        (("equation_solver", "?"), "No result.\n", 1),
        (("text_to_image", "a fox"), "Error: no back end for plugin 'text_to_image'\n", 1),
    ],
)
def test_answers(arguments: tuple[str, ...], output: str, status: int) -> None:
    shown = run(*arguments)
    assert (shown.output, shown.exit_code) == (output, status)


@pytest.mark.parametrize(
    ("argument", "output"),
    [("-5+3", "'-2'"), ("-(2)", "'-2'"), ("--5", "'5'"), ("-h", None), ("-xh", None), ("-", None)],
)
@pytest.mark.parametrize("before", [(), ("--",)])
def test_an_argument_is_taken_as_it_is(
    before: tuple[str, ...], argument: str, output: str | None
) -> None:
    shown = run("calculator", *before, argument)
    assert shown.output == f"{output or repr('No result.')}\n"


def test_help_and_settings_are_options_only_before_two_dashes(tmp_path: Path) -> None:
    assert "Answer ARGUMENT" in run("calculator", "--help").output
    assert "Answer ARGUMENT" in run("--help").output
    documents = ("--documents", str(tmp_path))
    (tmp_path / "help.md").write_text("The help of --documents=x", "utf-8")
    shown = "<|1|>: 'The help of --documents=x'\n"
    assert run("web_search", *documents, "--", "--help").stdout == shown
    assert run("web_search", f"--documents={tmp_path}", "--helpful --documents").stdout == shown
    assert run("web_search", "-help", *documents).stdout == shown
    assert run(*documents, "--", "web_search", "--documents").stdout == shown
    assert run("calculator", "1", "2").exit_code == 2


def test_search_in_documents(tmp_path: Path) -> None:
    (tmp_path / "tea.md").write_text("Tea is a drink.<eom> See <|2|>.", "utf-8")
    shown = run("web_search", "tea", "--documents", str(tmp_path))
    assert shown.stdout == "<|1|>: 'Tea is a drink.< eom> See < |2|>.'\n"
    assert shown.stderr == f"moss: web search: 1 documents (1 passages) in {tmp_path}\n"
    assert run("web_search", "coffee", "--documents", str(tmp_path)).stdout == "No result.\n"


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    shown = run("web_search", "tea", "--documents", str(tmp_path / "nowhere"))
    assert shown.exit_code == 2
    assert "nowhere" in shown.output
