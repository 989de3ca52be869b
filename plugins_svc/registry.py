"""Every plugin's spec, in MOSS's order, and what follows from them.

To add a plugin, add its spec to `_FURTHER`. It uses nothing of a plugin but its spec.
"""

from collections.abc import Collection

from plugins_svc.calculator.spec import CALCULATOR
from plugins_svc.equation_solver.spec import EQUATION_SOLVER
from plugins_svc.sdk.errors import UnknownPluginError
from plugins_svc.sdk.spec import Plugin, PluginSettings, PluginSpec
from plugins_svc.text_to_image.spec import TEXT_TO_IMAGE
from plugins_svc.web_search.spec import WEB_SEARCH

# The capability lines of MOSS's training data, which are always there. A string is the label of a
# capability that no plugin offers.
_TRAINED: tuple[PluginSpec | str, ...] = (
    WEB_SEARCH,
    CALCULATOR,
    EQUATION_SOLVER,
    TEXT_TO_IMAGE,
    "Image edition",
    "Text-to-speech",
)
# Plugins that MOSS was not trained with: their lines follow, only where they are enabled.
_FURTHER: tuple[PluginSpec, ...] = ()
# Also the order in which Results list their blocks.
SPECS = (*(entry for entry in _TRAINED if isinstance(entry, PluginSpec)), *_FURTHER)
PLUGIN_NAMES = tuple(spec.name for spec in SPECS)
SPEC_OF_CALL = {spec.call_name: spec for spec in SPECS}


def spec_of(name: str) -> PluginSpec:
    """The spec of the plugin called `name`; UnknownPluginError when there is none."""
    for spec in SPECS:
        if spec.name == name:
            return spec
    raise UnknownPluginError(f"no plugin is called {name!r}")


def available_plugins(settings: PluginSettings) -> tuple[str, ...]:
    """Names of the plugins that can run with these settings, in MOSS's order."""
    return tuple(spec.name for spec in SPECS if spec.why_unavailable(settings) is None)


def create_plugin(name: str, settings: PluginSettings) -> Plugin:
    """A new instance of the named plugin; UnknownPluginError when it cannot run."""
    return spec_of(name).start(settings)


def capability_lines(enabled: Collection[str]) -> str:
    """The lines that end a plugin model's meta instruction, each with its newline.

    A trained capability outside `enabled` reads `disabled.`; UnknownPluginError for an unknown
    name.
    """
    if unknown := set(enabled) - set(PLUGIN_NAMES):
        raise UnknownPluginError(f"unknown plugins: {', '.join(sorted(unknown))}")
    lines = ["- Inner thoughts: enabled.", *(_line(entry, enabled) for entry in _TRAINED)]
    lines += [spec.capability_line for spec in _FURTHER if spec.name in enabled]
    return "".join(f"{line}\n" for line in lines)


def _line(entry: PluginSpec | str, enabled: Collection[str]) -> str:
    if isinstance(entry, PluginSpec) and entry.name in enabled:
        return entry.capability_line
    return f"- {entry if isinstance(entry, str) else entry.label}: disabled."
