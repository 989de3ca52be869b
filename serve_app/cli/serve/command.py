"""`moss serve`: a whole server on this machine, from one command until Ctrl-C."""

import traceback
from pathlib import Path
from typing import NoReturn

import click

from moss_tp.device import DEVICES, DTYPES, TRAITS
from moss_tp.engine_config import KV_CACHE_DTYPES
from moss_tp.errors import ConfigError, MossError
from serve_app.cli.serve.guard import Guard
from serve_app.cli.serve.local_server import StartError, local_server, session_store, watch_ray
from serve_app.cli.serve.preflight import EMBEDDED, check_address, check_settings, make_directory
from serve_app.cli.serve.stop_signals import StopRequested, StopSignals
from serve_app.cli.terminal import Terminal, quiet_terminal
from serve_app.demo.bundled import BUNDLED_MODEL
from serve_app.settings import ServeSettings

STORE_SCHEMES = ("redis://", "rediss://", "unix://")
# Ctrl-C means now: replies that are being written get this long.
DRAIN_S = 2
DTYPE_HELP = "Default: " + ", ".join(f"{t.default_dtype} on {d}" for d, t in TRAITS.items()) + "."


@click.command()
@click.option(
    "--model", default=str(BUNDLED_MODEL), help="Model directory or hub id. Default: demo."
)
@click.option("--tp", type=click.IntRange(1), default=2, show_default=True, help="Ranks.")
@click.option("--device", type=click.Choice(DEVICES), default="cpu", show_default=True)
@click.option("--dtype", type=click.Choice(DTYPES), help=DTYPE_HELP)
@click.option(
    "--kv-cache-dtype", type=click.Choice(KV_CACHE_DTYPES), help="Default: the same as --dtype."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=19324, show_default=True)
@click.option("--store", default=EMBEDDED, show_default=True, help="embedded or redis://…")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".moss"),
    show_default=True,
    help="Where the embedded store and the log live.",
)
@click.option("--max-model-len", type=click.IntRange(2), help="Prompt and reply, in tokens.")
@click.option(
    "--documents",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory of .txt and .md files that web search searches. Default: no web search.",
)
@click.option(
    "--dialogue",
    type=click.Choice(["plugin", "plain"]),
    help="How the model was taught to speak. Default: plugin if it is named so, else plain.",
)
def command(
    model: str,
    tp: int,
    device: str,
    dtype: str | None,
    kv_cache_dtype: str | None,
    host: str,
    port: int,
    store: str,
    data_dir: Path,
    max_model_len: int | None,
    documents: Path | None,
    dialogue: str | None,
) -> None:
    """Serve a MOSS model over HTTP on this machine until Ctrl-C."""
    if store != EMBEDDED and not store.startswith(STORE_SCHEMES):
        raise ConfigError(f"--store is {EMBEDDED} or a URL such as redis://host:6379/0")
    settings = ServeSettings.model_validate(
        {
            "model": model,
            "store": store,
            "tp": tp,
            "device": device,
            "dtype": dtype,
            "kv_cache_dtype": kv_cache_dtype,
            "max_model_len": max_model_len,
            "documents_dir": documents,
            "dialogue": dialogue,
            "drain_s": DRAIN_S,
            "start_attempts": 1,
        }
    )
    warnings = check_settings(settings)
    check_address(host, port)
    make_directory(data_dir)
    log = data_dir / "serve.log"
    with quiet_terminal(log) as terminal:
        for warning in warnings:
            terminal.say(warning)
        try:
            with Guard(), StopSignals(terminal) as stop:
                _serve(settings, host, port, data_dir, terminal, stop)
        # While Ray starts it has a handler of its own for SIGTERM, which exits.
        except (StopRequested, SystemExit):
            terminal.say("stopped")
        except MossError:
            raise
        except Exception as error:
            traceback.print_exc()  # into the log
            raise StartError(f"{type(error).__name__}; {log} says more") from error


def _serve(
    settings: ServeSettings,
    host: str,
    port: int,
    data_dir: Path,
    terminal: Terminal,
    stop: StopSignals,
) -> NoReturn:
    """Runs until `stop` raises StopRequested."""
    if settings.store == EMBEDDED:
        terminal.say(f"starting the session store in {data_dir / 'store'}")
    with session_store(settings.store, data_dir / "store") as store:
        settings = settings.model_copy(update={"store": store})
        with local_server(settings, host, port, terminal.say, stop.check):
            terminal.say(_ready_line(host, port, terminal.elapsed_s))
            watch_ray(stop.check)


def _ready_line(host: str, port: int, seconds: float) -> str:
    name = "localhost" if host in ("127.0.0.1", "0.0.0.0", "::") else host
    return (
        f"ready in {seconds:.0f} s; try: curl -X POST http://{name}:{port} "
        "-H 'Content-Type: application/json' -d '{\"prompt\": \"你是谁？\"}'"
    )
