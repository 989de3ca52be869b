"""What the registry derives from the specs: capability lines, byte for byte, and availability."""

from dataclasses import replace
from pathlib import Path

import pytest

from plugins_svc import registry
from plugins_svc.registry import (
    PLUGIN_NAMES,
    SPEC_OF_CALL,
    SPECS,
    available_plugins,
    capability_lines,
    create_plugin,
    spec_of,
)
from plugins_svc.sdk.errors import PluginError, UnknownPluginError

ALL_ON = """\
- Inner thoughts: enabled.
- Web search: enabled. API: Search(query)
- Calculator: enabled. API: Calculate(expression)
- Equation solver: enabled. API: Solve(equation)
- Text-to-image: enabled. API: Text2Image(description)
- Image edition: disabled.
- Text-to-speech: disabled.
"""
ONLY_CALCULATOR = """\
- Inner thoughts: enabled.
- Web search: disabled.
- Calculator: enabled. API: Calculate(expression)
- Equation solver: disabled.
- Text-to-image: disabled.
- Image edition: disabled.
- Text-to-speech: disabled.
"""


def test_capability_lines() -> None:
    assert capability_lines(PLUGIN_NAMES) == ALL_ON
    assert capability_lines({"calculator"}) == ONLY_CALCULATOR


def test_a_further_plugin_has_a_line_only_where_it_is_enabled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that prompts keep the trained form while it is off."""
    dice = replace(spec_of("calculator"), name="dice", call_name="Roll", label="Dice")
    monkeypatch.setattr(registry, "_FURTHER", (dice,))
    monkeypatch.setattr(registry, "PLUGIN_NAMES", (*PLUGIN_NAMES, "dice"))
    assert capability_lines({"calculator"}) == ONLY_CALCULATOR
    with_dice = ONLY_CALCULATOR + "- Dice: enabled. API: Roll(expression)\n"
    assert capability_lines({"calculator", "dice"}) == with_dice


def test_names_and_calls_are_those_of_the_specs() -> None:
    assert PLUGIN_NAMES == ("web_search", "calculator", "equation_solver", "text_to_image")
    assert tuple(SPEC_OF_CALL) == ("Search", "Calculate", "Solve", "Text2Image")
    assert [spec_of(spec.name) for spec in SPECS] == list(SPECS)
    names = [setting.name for spec in SPECS for setting in spec.settings]
    assert len(set(names)) == len(names)


def test_only_an_image_is_an_effect() -> None:
    assert [spec.name for spec in SPECS if spec.has_effects] == ["text_to_image"]


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UnknownPluginError, match="abacus"):
        capability_lines({"abacus"})
    with pytest.raises(UnknownPluginError, match="abacus"):
        create_plugin("abacus", {})


def test_search_needs_documents_and_there_is_no_image_back_end() -> None:
    assert available_plugins({}) == ("calculator", "equation_solver")
    with_documents = available_plugins({"documents_dir": Path("docs")})
    assert with_documents == ("web_search", "calculator", "equation_solver")
    for name in ("web_search", "text_to_image"):
        with pytest.raises(UnknownPluginError, match=name):
            create_plugin(name, {})


def test_a_missing_documents_directory_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="nowhere"):
        create_plugin("web_search", {"documents_dir": tmp_path / "nowhere"})


def test_every_available_plugin_can_be_created_and_closed(tmp_path: Path) -> None:
    settings = {"documents_dir": tmp_path}
    for name in available_plugins(settings):
        create_plugin(name, settings).close()
