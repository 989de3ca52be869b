"""The flags of the plugins' settings, as their specs spell them (`--documents DIR`).

A value is stored under the name of its setting; a flag that is not given is None.
"""

from pathlib import Path

import click

from plugins_svc.registry import SPECS
from plugins_svc.sdk.spec import Setting
from serve_app.cli.options import Option

_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)


def _option(setting: Setting) -> Option:
    return click.option(
        setting.option,
        setting.name,
        type=_DIRECTORY if setting.is_directory else str,
        metavar=setting.metavar,
        help=setting.help,
    )


PLUGIN_OPTIONS = tuple(_option(setting) for spec in SPECS for setting in spec.settings)
