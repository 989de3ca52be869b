"""`moss plugin run NAME ARG`: runs one plugin outside a chat and prints what the model would read.

Plugin names and options come from the plugins' specs. ARG is taken as it is, for calls begin with
anything (`-5+3`).
"""

import asyncio
import itertools
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


class VerbatimCommand(click.Command):
    """A command whose arguments may look like options.

    Only an option that the command has, spelled out, is one. After `--` everything is an argument.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        num_values = self._num_values(ctx)
        options: list[str] = []
        arguments: list[str] = []
        rest = iter(args)
        for arg in rest:
            if arg == "--":
                arguments.extend(rest)
            elif arg in num_values:
                options.extend((arg, *itertools.islice(rest, num_values[arg])))
            elif num_values.get(arg.partition("=")[0]):
                options.append(arg)
            else:
                arguments.append(arg)
        return super().parse_args(ctx, [*options, "--", *arguments])

    def _num_values(self, ctx: click.Context) -> dict[str, int]:
        """How many values follow each option, by its name."""
        options = (o for o in self.get_params(ctx) if isinstance(o, click.Option))
        return {name: 0 if o.is_flag else o.nargs for o in options for name in o.opts}


@click.group()
def command() -> None:
    """Run plugins by hand."""


@command.command(cls=VerbatimCommand)
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
        if note := await plugin.ready():
            click.echo(f"moss: {note}", err=True)
        return await plugin.run(argument)
    finally:
        plugin.close()
