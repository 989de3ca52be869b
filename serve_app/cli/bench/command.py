"""`moss bench`: the group of benchmark commands. Each is in a module of its name.

They turn flags into specs and results into output; `serve_app.bench` measures, and is imported
only when a command runs, so that `--help` is quick.
"""

import click

from serve_app.cli.bench.chat import chat
from serve_app.cli.bench.collectives import collectives
from serve_app.cli.bench.engine import engine
from serve_app.cli.bench.host import host
from serve_app.cli.bench.memory import memory
from serve_app.cli.bench.quality import quality
from serve_app.cli.bench.serve import serve


@click.group()
def command() -> None:
    """Measure the engine, the server and long chats on this machine."""


for _subcommand in (engine, serve, chat, memory, quality, collectives, host):
    command.add_command(_subcommand)
