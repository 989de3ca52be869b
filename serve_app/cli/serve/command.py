"""`moss serve`: a whole server on this machine, from one command until Ctrl-C."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from moss_tp.errors import MossError
from serve_app.cli.directory import make_directory
from serve_app.cli.interrupt import check_interrupts
from serve_app.cli.serve.address import held_address, url_of
from serve_app.cli.serve.guard import Guard
from serve_app.cli.serve.local_server import (
    APP_NAME,
    StartError,
    local_server,
    session_store,
    wait_for_stop,
)
from serve_app.cli.serve.model_notes import model_notes
from serve_app.cli.serve.options import serve_options, serve_settings
from serve_app.cli.serve.preflight import check_settings
from serve_app.cli.serve.stop_signals import StopRequested, StopSignals
from serve_app.cli.stored.location import EMBEDDED, STORE_FOLDER
from serve_app.cli.terminal import Terminal, quiet_terminal
from serve_app.settings import ServeSettings


@click.command()
@serve_options
def command(host: str, port: int, data_dir: Path, has_dashboard: bool, **fields: Any) -> None:
    """Serve a MOSS model over HTTP on this machine until Ctrl-C."""
    settings = serve_settings(fields, host)
    warnings = check_settings(settings)
    log = data_dir / "serve.log"
    with held_address(host, port) as address:
        make_directory(data_dir)
        # Before the guard: from the first process on, a signal ends all of them in order.
        with quiet_terminal(log) as terminal, StopSignals(terminal) as stop:
            check_interrupts()
            for warning in warnings:
                terminal.say(warning)
            with _errors_in_one_line(terminal, log, stop), Guard():
                server = _Server(settings, address, port, data_dir, has_dashboard)
                server.run(terminal, stop, url_of(host, port))


@contextmanager
def _errors_in_one_line(terminal: Terminal, log: Path, stop: StopSignals) -> Iterator[None]:
    """Ends quietly when asked to stop; a traceback goes into the log.

    After a request to stop no error counts: a Ctrl-C reaches what Ray has just started, too.
    """
    try:
        yield
    except StopRequested:
        terminal.say("stopped")
    except Exception as error:
        if isinstance(error, MossError) and not stop.is_requested:
            raise
        traceback.print_exc()  # stderr is the log now
        if not stop.is_requested:
            raise StartError(f"{type(error).__name__}; {log} says more") from error
        terminal.say("stopped")


@dataclass(frozen=True)
class _Server:
    """A server with the settings and the address of the flags."""

    settings: ServeSettings
    address: str
    port: int
    data_dir: Path
    has_dashboard: bool

    def run(self, terminal: Terminal, stop: StopSignals, url: str) -> NoReturn:
        """Serves until `stop` raises StopRequested."""
        store_dir = self.data_dir / STORE_FOLDER
        if self.settings.store == EMBEDDED:
            terminal.say(f"starting the session store in {store_dir}")
        with session_store(self.settings.store, store_dir) as store:
            log = self.data_dir.resolve() / "moss.log"
            settings = self.settings.model_copy(update={"store": store, "log_file": log})
            server = local_server(
                settings,
                self.address,
                self.port,
                terminal.say,
                stop.check,
                has_dashboard=self.has_dashboard,
            )
            with server as check:
                for note in model_notes(settings, APP_NAME):
                    terminal.say(note)
                terminal.say(_ready_line(terminal.elapsed_s, url, settings.requires_key))
                wait_for_stop(check)


def _ready_line(seconds: float, url: str, requires_key: bool) -> str:
    """How long it took, and a curl command that works; with keys, for who has one."""
    key = '-H "Authorization: Bearer $KEY" ' if requires_key else ""
    return (
        f"ready in {seconds:.0f} s; try: curl -X POST {url} {key}"
        "-H 'Content-Type: application/json' -d '{\"prompt\": \"你是谁？\"}'"
    )
