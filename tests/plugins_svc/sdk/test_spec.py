"""Specs on a fake plugin: availability, start and the argument check."""

from dataclasses import replace

import pytest

from plugins_svc.sdk.arguments import at_most, cut_to
from plugins_svc.sdk.errors import UnknownPluginError
from plugins_svc.sdk.output import PluginOutput
from plugins_svc.sdk.spec import PluginSettings, PluginSpec, Setting


class Echo:
    """Answers with a prefix and its argument; counts its checks and closings."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.num_checks = 0
        self.num_closed = 0

    async def ready(self) -> str:
        return ""

    async def run(self, argument: str) -> PluginOutput:
        return PluginOutput(True, (self.prefix + argument,))

    async def check(self) -> None:
        self.num_checks += 1

    def close(self) -> None:
        self.num_closed += 1


def create_echo(settings: PluginSettings) -> Echo:
    return Echo(str(settings["prefix"]))


PREFIX = Setting("prefix", "--prefix", "TEXT", "What to begin with.", "it begins with a prefix")
ECHO = PluginSpec(
    name="echo",
    call_name="Echo",
    label="Echo chamber",
    parameter="text",
    check_argument=at_most(3),
    create=create_echo,
    settings=(PREFIX,),
)


def test_the_capability_line() -> None:
    assert ECHO.capability_line == "- Echo chamber: enabled. API: Echo(text)"


def test_a_plugin_without_a_required_setting_names_it() -> None:
    reason = "no back end for plugin 'echo': it begins with a prefix, so give --prefix TEXT"
    assert ECHO.why_unavailable({"other": "x"}) == reason
    with pytest.raises(UnknownPluginError, match="give --prefix TEXT"):
        ECHO.start({})
    assert ECHO.why_unavailable({"prefix": ">"}) is None


def test_a_plugin_without_a_back_end_is_never_available() -> None:
    spec = replace(ECHO, create=None)
    assert spec.why_unavailable({"prefix": ">"}) == "no back end for plugin 'echo'"
    with pytest.raises(UnknownPluginError):
        spec.start({"prefix": ">"})


async def test_the_argument_check_stands_before_the_plugin() -> None:
    refusing = ECHO.start({"prefix": ">"})
    assert await refusing.run("abc") == PluginOutput(True, (">abc",))
    assert await refusing.run("abcd") == PluginOutput.no_result()
    cutting = replace(ECHO, check_argument=cut_to(3)).start({"prefix": ">"})
    assert await cutting.run("abcd") == PluginOutput(True, (">abc",))


async def test_check_and_close_reach_the_plugin() -> None:
    echo = Echo("")
    plugin = replace(ECHO, create=lambda settings: echo).start({"prefix": ""})
    await plugin.check()
    plugin.close()
    assert (echo.num_checks, echo.num_closed) == (1, 1)
