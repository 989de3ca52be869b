"""The `moss` command. A subcommand is imported only when it is used, so that `--help` is quick.

A MossError becomes one line on stderr and an exit status; any other error is a bug and keeps its
traceback.
"""

import sys
from importlib import import_module
from importlib.metadata import version
from typing import cast

import click

from moss_tp.errors import MossError
from serve_app.cli.interrupt import remember_interrupts

# By name: the module, and the line in `moss --help`, which must not import the module.
SUBCOMMANDS = {
    "serve": ("serve_app.cli.serve.command", "Serve a MOSS model over HTTP on this machine."),
    "front": ("serve_app.cli.front", "Write, or run, what protects a server from strangers."),
    "chat": ("serve_app.cli.running.chat", "Chat with a running server in the terminal."),
    "status": ("serve_app.cli.running.status", "Show what a running server does now."),
    "keys": ("serve_app.cli.stored.keys", "Make, list and revoke API keys."),
    "bench": ("serve_app.cli.bench.command", "Measure the engine, the server and long chats."),
    "plugin": ("serve_app.cli.plugin", "Run one plugin by hand."),
    "gpu-check": ("serve_app.cli.gpu_check", "Check this machine's GPU: results, speed, memory."),
    "kernels": ("serve_app.cli.kernels", "Show what the CUDA kernels need of a GPU."),
    "export": ("serve_app.cli.stored.export", "Write chats as conversations to train on."),
    "replay": ("serve_app.cli.stored.replay", "Make a stored turn again, and compare the bytes."),
    "finetune": ("serve_app.cli.finetune", "Fine-tune a MOSS model on conversations."),
    "quantize": ("serve_app.cli.quantize", "Write a model with weights of 4 or 8 bits."),
    "shard": ("serve_app.cli.shard", "Write a model cut into ranks and packed, to start fast."),
    "demo": ("serve_app.cli.demo.pages", "Show pages like MOSS's Gradio and Streamlit demos."),
    "demo-data": ("serve_app.cli.demo.data", "Write the demo model's training conversations."),
    "demo-eval": ("serve_app.cli.demo.evaluation", "Measure the demo model on held-out questions."),
}


class LazyGroup(click.Group):
    """A group whose commands are `command` in the modules of SUBCOMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUBCOMMANDS:
            return None
        module = import_module(SUBCOMMANDS[cmd_name][0])
        return cast(click.Command, module.command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in SUBCOMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("moss-serve"), prog_name="moss")
def moss() -> None:
    """Tensor-parallel serving for MOSS, with sessions and plugins."""


def main() -> None:
    """Entry point: runs a subcommand; its errors become one line and an exit status."""
    remember_interrupts()
    try:
        status = moss.main(prog_name="moss", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        status = 2
    except click.ClickException as error:
        status = _fail(error.format_message(), error.exit_code)
    except MossError as error:
        status = _fail(str(error), 1)
    except (click.Abort, KeyboardInterrupt):
        status = 130
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, status: int) -> int:
    """Prints `message` on one line; returns `status`."""
    click.echo(f"moss: {' '.join(message.split())}", err=True)
    return status


if __name__ == "__main__":
    main()
