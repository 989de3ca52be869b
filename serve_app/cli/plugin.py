"""`moss plugin run NAME ARG`: runs one plugin outside a chat and prints what the model would read.

Plugin names and options come from the plugins' specs.
"""

import asyncio
from pathlib import Path

import click

from moss_tp.dialogue import neutralise_output
from plugins_svc.protocol.calls import Call
from plugins_svc.protocol.results import format_value
from plugins_svc.registry import PLUGIN_NAMES, SPECS, create_plugin, spec_of
from plugins_svc.sdk.errors import PluginError
from plugins_svc.sdk.output import PluginOutput
from plugins_svc.sdk.spec import PluginSettings, Setting

_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group()
def command() -> None:
    """Run plugins by hand."""


def run(name: str, argument: str, **values: str | Path | None) -> None:
    """Answer ARGUMENT as plugin NAME would in a chat; status 1 when there is no result."""
    settings = {setting: value for setting, value in values.items() if value is not None}
    output = asyncio.run(_answer(name, argument, settings))
    call = Call(spec_of(name).call_name, argument)
    click.echo(format_value(call, output, neutralise_output))
    if not output.ok:
        raise SystemExit(1)


def _option(setting: Setting) -> click.Option:
    return click.Option(
        [setting.option, setting.name],
        type=_DIRECTORY if setting.is_directory else str,
        metavar=setting.metavar,
        help=setting.help,
    )


command.add_command(
    click.Command(
        "run",
        callback=run,
        help=run.__doc__,
        params=[
            click.Argument(["name"], type=click.Choice(PLUGIN_NAMES)),
            click.Argument(["argument"]),
            *(_option(setting) for spec in SPECS for setting in spec.settings),
        ],
    )
)


async def _answer(name: str, argument: str, settings: PluginSettings) -> PluginOutput:
    try:
        plugin = create_plugin(name, settings)
    except PluginError as error:
        raise click.ClickException(str(error)) from error
    try:
        return await plugin.run(argument)
    finally:
        plugin.close()
