"""`moss serve`: a whole server on this machine, from one command until Ctrl-C."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from moss_tp.errors import MossError
from serve_app.cli.serve.guard import Guard
from serve_app.cli.serve.local_server import StartError, local_server, session_store, watch_ray
from serve_app.cli.serve.options import EMBEDDED, serve_options, serve_settings
from serve_app.cli.serve.preflight import check_address, check_settings, make_directory
from serve_app.cli.serve.stop_signals import StopRequested, StopSignals
from serve_app.cli.terminal import Terminal, quiet_terminal
from serve_app.settings import ServeSettings


@click.command()
@serve_options
def command(host: str, port: int, data_dir: Path, **fields: Any) -> None:
    """Serve a MOSS model over HTTP on this machine until Ctrl-C."""
    settings = serve_settings(fields)
    warnings = check_settings(settings)
    check_address(host, port)
    make_directory(data_dir)
    log = data_dir / "serve.log"
    with quiet_terminal(log) as terminal:
        for warning in warnings:
            terminal.say(warning)
        with _errors_in_one_line(terminal, log), Guard(), StopSignals(terminal) as stop:
            _Server(settings, host, port, data_dir).run(terminal, stop)


@contextmanager
def _errors_in_one_line(terminal: Terminal, log: Path) -> Iterator[None]:
    """Ends quietly when asked to stop; a traceback goes into the log."""
    try:
        yield
    # While Ray starts, its own SIGTERM handler is installed, which raises SystemExit.
    except (StopRequested, SystemExit):
        terminal.say("stopped")
    except MossError:
        raise
    except Exception as error:
        traceback.print_exc()  # stderr is the log now
        raise StartError(f"{type(error).__name__}; {log} says more") from error


@dataclass(frozen=True)
class _Server:
    """A server with the settings and the address of the flags."""

    settings: ServeSettings
    host: str
    port: int
    data_dir: Path

    def run(self, terminal: Terminal, stop: StopSignals) -> NoReturn:
        """Serves until `stop` raises StopRequested."""
        store_dir = self.data_dir / "store"
        if self.settings.store == EMBEDDED:
            terminal.say(f"starting the session store in {store_dir}")
        with session_store(self.settings.store, store_dir) as store:
            settings = self.settings.model_copy(update={"store": store})
            with local_server(settings, self.host, self.port, terminal.say, stop.check):
                terminal.say(self._ready_line(terminal.elapsed_s))
                watch_ray(stop.check)

    def _ready_line(self, seconds: float) -> str:
        """How long it took, and a curl command that works."""
        name = "localhost" if self.host in ("127.0.0.1", "0.0.0.0", "::") else self.host
        return (
            f"ready in {seconds:.0f} s; try: curl -X POST http://{name}:{self.port} "
            "-H 'Content-Type: application/json' -d '{\"prompt\": \"你是谁？\"}'"
        )
