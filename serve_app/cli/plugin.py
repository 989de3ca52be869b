"""`moss plugin run NAME ARG`: one plugin, outside any chat, as the model would see its answer."""

import asyncio
from pathlib import Path

import click

from moss_tp.dialogue import neutralise_output
from plugins_svc.errors import PluginError
from plugins_svc.protocol.calls import Call
from plugins_svc.protocol.results import format_value
from plugins_svc.registry import PLUGIN_NAMES, PluginSettings, create_plugin
from plugins_svc.sdk.output import PluginOutput


@click.group()
def command() -> None:
    """Plugins by hand."""


@command.command()
@click.argument("name", type=click.Choice(PLUGIN_NAMES))
@click.argument("argument")
@click.option(
    "--documents",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory of .txt and .md files for web_search.",
)
def run(name: str, argument: str, documents: Path | None) -> None:
    """Answer ARGUMENT as plugin NAME would in a chat; status 1 when there is no result."""
    call, output = asyncio.run(_run(name, argument, PluginSettings(documents)))
    click.echo(format_value(call, output.map_text(neutralise_output)))
    if not output.ok:
        raise SystemExit(1)


async def _run(name: str, argument: str, settings: PluginSettings) -> tuple[Call, PluginOutput]:
    try:
        plugin = create_plugin(name, settings)
    except PluginError as error:
        raise click.ClickException(str(error)) from error
    try:
        return Call(plugin.call_name, argument), await plugin.run(argument)
    finally:
        plugin.close()
