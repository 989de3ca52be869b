"""Capability lines, byte for byte, and which plugins can be made."""

from pathlib import Path

import pytest

from plugins_svc.errors import PluginError, UnknownPluginError
from plugins_svc.registry import (
    PLUGIN_NAMES,
    PluginSettings,
    available_plugins,
    capability_lines,
    create_plugin,
)

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


def test_a_name_that_nobody_has_is_refused() -> None:
    with pytest.raises(UnknownPluginError, match="abacus"):
        capability_lines({"abacus"})
    with pytest.raises(UnknownPluginError, match="abacus"):
        create_plugin("abacus")


def test_search_needs_documents_and_there_is_no_image_back_end() -> None:
    assert available_plugins(PluginSettings()) == ("calculator", "equation_solver")
    with_documents = available_plugins(PluginSettings(Path("docs")))
    assert with_documents == ("web_search", "calculator", "equation_solver")
    for name in ("web_search", "text_to_image"):
        with pytest.raises(UnknownPluginError, match=name):
            create_plugin(name)


def test_a_missing_documents_directory_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="nowhere"):
        create_plugin("web_search", PluginSettings(tmp_path / "nowhere"))


def test_every_available_plugin_is_what_its_name_says(tmp_path: Path) -> None:
    settings = PluginSettings(tmp_path)
    for name in available_plugins(settings):
        plugin = create_plugin(name, settings)
        assert plugin.name == name
        plugin.close()
