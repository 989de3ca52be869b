"""`moss demo`: pages like those of MOSS's original demos, as thin clients of a running server."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click

from moss_tp.errors import ConfigError
from serve_app.api_secret import ENVIRONMENT
from serve_app.cli.options import with_options
from serve_app.client.chat_client import ChatClient

HOST = "127.0.0.1"  # the pages ask nobody for a key
URL_VARIABLE = "MOSS_DEMO_URL"


def _options(port: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    url, span = "http://localhost:19324", click.IntRange(1, 65535)
    return with_options(
        click.option("--url", default=url, show_default=True, help="The server."),
        click.option("--port", default=port, show_default=True, type=span, help="Of the page."),
    )


@click.group(name="demo")
def command() -> None:
    """Show pages like MOSS's original demos, on this machine alone.

    MOSS_API_KEY is the key of the server, if it needs one.
    """


@command.command()
@_options(7860)
def gradio(url: str, port: int) -> None:
    """Serve the page made with Gradio."""
    _check("gradio", url)
    page = import_module("serve_app.cli.demo.gradio_page")
    page.run(url, os.environ.get(ENVIRONMENT), HOST, port)


@command.command()
@_options(8501)
def streamlit(url: str, port: int) -> None:
    """Serve the page made with Streamlit."""
    _check("streamlit", url)
    script = Path(__file__).with_name("streamlit_page.py")
    server = ["--server.address", HOST, "--server.port", str(port), "--server.headless", "true"]
    run = [sys.executable, "-m", "streamlit", "run", str(script), *server]
    run += ["--browser.gatherUsageStats", "false", "--server.fileWatcherType", "none"]
    run += ["--client.toolbarMode", "minimal"]
    sys.exit(subprocess.run(run, env={**os.environ, URL_VARIABLE: url}).returncode)


def _check(package: str, url: str) -> None:
    """Raises ConfigError without the package, and ChatError without the server."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:  # a folder of that name is not it
        raise ConfigError(f"{package} is missing: pip install 'moss-serve[{package}]'")
    client = ChatClient(url, os.environ.get(ENVIRONMENT))
    try:
        client.check()
    finally:
        client.close()
