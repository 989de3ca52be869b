"""`moss plugin run NAME ARG`: runs one plugin outside a chat and prints what the model would read.

Plugin names and options come from the plugins' specs.
"""

import asyncio
from pathlib import Path

import click

from moss_tp.dialogue import neutralise_output
from plugins_svc.protocol.calls import Call
from plugins_svc.protocol.results import format_value
from plugins_svc.registry import PLUGIN_NAMES, create_plugin, spec_of
from plugins_svc.sdk.errors import PluginError
from plugins_svc.sdk.output import PluginOutput
from plugins_svc.sdk.spec import PluginSettings
from serve_app.cli.options import with_options
from serve_app.cli.plugin_options import PLUGIN_OPTIONS


@click.group()
def command() -> None:
    """Run plugins by hand."""


@command.command()
@click.argument("name", type=click.Choice(PLUGIN_NAMES))
@click.argument("argument")
@with_options(*PLUGIN_OPTIONS)
def run(name: str, argument: str, **values: str | Path | None) -> None:
    """Answer ARGUMENT as plugin NAME would in a chat; status 1 when there is no result."""
    settings = {setting: value for setting, value in values.items() if value is not None}
    output = asyncio.run(_answer(name, argument, settings))
    call = Call(spec_of(name).call_name, argument)
    click.echo(format_value(call, output, neutralise_output))
    if not output.ok:
        raise SystemExit(1)


async def _answer(name: str, argument: str, settings: PluginSettings) -> PluginOutput:
    try:
        plugin = create_plugin(name, settings)
    except PluginError as error:
        raise click.ClickException(str(error)) from error
    try:
        return await plugin.run(argument)
    finally:
        plugin.close()
