"""`moss front`: writes HAProxy's configuration for a server on loopback, and may run it."""

import tempfile
from pathlib import Path

import click

from serve_app.cli.options import with_options

_OPTIONS = (
    click.option(
        "--listen", default="*:443", show_default=True, metavar="HOST:PORT", help="For clients."
    ),
    click.option(
        "--cert",
        type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path),
        help="PEM file with the certificate's chain and its key.",
    ),
    click.option("--plain", is_flag=True, help="Plain HTTP: something before it speaks TLS."),
    click.option(
        "--backend",
        "back_ends",
        multiple=True,
        default=["127.0.0.1:19324"],
        show_default=True,
        metavar="HOST:PORT",
        help="A server of this machine; may be given again.",
    ),
    click.option(
        "--max-body-bytes", default=256 * 1024, show_default=True, type=click.IntRange(1024)
    ),
    click.option(
        "--max-connections", default=2000, show_default=True, type=click.IntRange(10, 100_000)
    ),
    click.option(
        "--out",
        type=click.Path(dir_okay=False, path_type=Path),
        help="File to write. Without it: the screen.",
    ),
    click.option("--run", "is_run", is_flag=True, help="Run HAProxy on it, in the foreground."),
)


@click.command(name="front")
@with_options(*_OPTIONS)
def command(
    listen: str,
    cert: Path | None,
    plain: bool,
    back_ends: tuple[str, ...],
    max_body_bytes: int,
    max_connections: int,
    out: Path | None,
    is_run: bool,
) -> int:
    """Write an HAProxy configuration that bounds what strangers can do to a server on loopback.

    It bounds bodies, headers and time, speaks TLS, passes streams as they come, and sends nothing
    to a server that drains. With --run SIGTERM ends it once its connections are done.
    """
    from serve_app.front.config import render
    from serve_app.front.settings import Address, FrontSettings, Limits

    settings = FrontSettings(
        listen=Address.parse(listen),
        back_ends=tuple(map(Address.parse, back_ends)),
        certificate=cert,
        is_plain=plain,
        limits=Limits(body_bytes=max_body_bytes, connections=max_connections),
    )
    text = render(settings)
    if out is not None:
        out.write_text(text, encoding="utf-8")
    elif not is_run:
        click.echo(text, nl=False)
    return _run(text, out) if is_run else 0


def _run(text: str, out: Path | None) -> int:
    """HAProxy's exit status."""
    from serve_app.front.run import Front, find_haproxy

    haproxy = find_haproxy()
    if out is not None:
        return Front(haproxy, out).wait()
    with tempfile.TemporaryDirectory(prefix="moss-front-") as directory:
        file = Path(directory) / "haproxy.cfg"
        file.write_text(text, encoding="utf-8")
        return Front(haproxy, file).wait()


if __name__ == "__main__":
    command()
