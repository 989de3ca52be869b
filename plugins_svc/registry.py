"""Which plugins exist, in MOSS's order, what the model is told of them, and how each is made."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from plugins_svc.calculator import Calculator
from plugins_svc.equation_solver import EquationSolver
from plugins_svc.errors import UnknownPluginError
from plugins_svc.sdk.spec import Plugin
from plugins_svc.web_search import WebSearch


@dataclass(frozen=True)
class Capability:
    """One capability line of the meta instruction. `plugin` is None for what is always off."""

    plugin: str | None
    label: str
    api: str = ""


CAPABILITIES = (
    Capability("web_search", "Web search", "Search(query)"),
    Capability("calculator", "Calculator", "Calculate(expression)"),
    Capability("equation_solver", "Equation solver", "Solve(equation)"),
    Capability("text_to_image", "Text-to-image", "Text2Image(description)"),
    Capability(None, "Image edition"),
    Capability(None, "Text-to-speech"),
)
PLUGIN_NAMES = tuple(c.plugin for c in CAPABILITIES if c.plugin is not None)


@dataclass(frozen=True)
class PluginSettings:
    """What back ends need from the operator."""

    documents_dir: Path | None = None


def available_plugins(settings: PluginSettings) -> tuple[str, ...]:
    """Names of the plugins that have a back end under these settings, in MOSS's order."""
    without = {"text_to_image"} | ({"web_search"} if settings.documents_dir is None else set())
    return tuple(name for name in PLUGIN_NAMES if name not in without)


def create_plugin(name: str, settings: PluginSettings | None = None) -> Plugin:
    """A new instance of the named plugin; UnknownPluginError when it has no back end."""
    documents_dir = settings.documents_dir if settings else None
    match name:
        case "calculator":
            return Calculator()
        case "equation_solver":
            return EquationSolver()
        case "web_search" if documents_dir is not None:
            return WebSearch(documents_dir)
    hint = ": it searches documents, so give --documents DIR" if name == "web_search" else ""
    raise UnknownPluginError(f"no back end for plugin {name!r}{hint}")


def capability_lines(enabled: Collection[str]) -> str:
    """The seven lines that end a plugin model's meta instruction, each with its newline.

    A plugin outside `enabled` reads `disabled.`; UnknownPluginError for a name nobody has.
    """
    if unknown := set(enabled) - set(PLUGIN_NAMES):
        raise UnknownPluginError(f"unknown plugins: {', '.join(sorted(unknown))}")
    lines = ["- Inner thoughts: enabled."]
    for capability in CAPABILITIES:
        on = capability.plugin in enabled
        state = f"enabled. API: {capability.api}" if on else "disabled."
        lines.append(f"- {capability.label}: {state}")
    return "".join(f"{line}\n" for line in lines)
