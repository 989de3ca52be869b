"""The flags of `moss serve`, and the ServeSettings made of them.

A flag that is a setting has the name of its field, so that adding one takes a line here and a
field there. `host`, `port`, `data_dir` and `has_dashboard` belong to the command itself.
"""

import os
import re
from ipaddress import ip_address
from typing import Any

import click

from cluster.scaling.replicas import Replicas
from moss_tp.device import DEVICES, DTYPES, TRAITS, threads_per_rank
from moss_tp.engine_config import KV_CACHE_DTYPES, LM_HEAD_BITS, LOAD_FORMATS
from moss_tp.errors import ConfigError
from serve_app.cli.options import with_options
from serve_app.cli.plugin_options import PLUGIN_OPTIONS
from serve_app.cli.stored.location import STORE_OPTIONS, check_store
from serve_app.demo.bundled import BUNDLED_MODEL
from serve_app.exposure import check_exposure
from serve_app.settings import ServeSettings

_HOST_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_DTYPE_HELP = "Default: " + ", ".join(f"{t.default_dtype} on {d}" for d, t in TRAITS.items()) + "."

serve_options = with_options(
    click.option(
        "--model", default=str(BUNDLED_MODEL), help="Model directory or hub id. Default: demo."
    ),
    click.option("--tp", type=click.IntRange(1), default=2, show_default=True, help="Ranks."),
    click.option(
        "--replicas",
        default="1",
        show_default=True,
        callback=lambda context, option, value: _replicas(value),
        metavar="N|LEAST..MOST",
        help="Copies of the model, each on ranks and memory of its own; 1..4: as the load needs.",
    ),
    click.option(
        "--scale-down-after",
        "scale_down_after_s",
        type=click.FloatRange(0),
        default=60,
        show_default=True,
        metavar="SECONDS",
        help="How long fewer replicas have to have been enough.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(1),
        help="Of each rank, on a CPU. Default: the cores, shared by all ranks of all replicas.",
    ),
    click.option("--device", type=click.Choice(DEVICES), default="cpu", show_default=True),
    click.option("--dtype", type=click.Choice(DTYPES), help=_DTYPE_HELP),
    click.option(
        "--kv-cache-dtype", type=click.Choice(KV_CACHE_DTYPES), help="Default: the same as --dtype."
    ),
    click.option(
        "--lm-head-bits",
        type=click.Choice(LM_HEAD_BITS),
        help="Round the LM head when it is loaded. Default: as it is stored.",
    ),
    click.option(
        "--cpu-offload-gb",
        type=click.FloatRange(0),
        default=0.0,
        metavar="GIB",
        help="Weights that each rank keeps in host memory and streams to its GPU.",
    ),
    click.option(
        "--load-format",
        type=click.Choice(LOAD_FORMATS),
        default="auto",
        help="dummy: random weights, to measure speed and memory without a checkpoint.",
    ),
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
    click.option("--port", type=click.IntRange(1, 65535), default=19324, show_default=True),
    click.option(
        "--dashboard",
        "has_dashboard",
        is_flag=True,
        help="Run Ray's dashboard, too, for this machine only.",
    ),
    click.option(
        "--auth",
        type=click.Choice(["required", "none"]),
        help="Whether callers need an API key. Default: if MOSS_API_KEY is set.",
    ),
    click.option("--no-auth", is_flag=True, help="Serve other machines, and without keys."),
    click.option(
        "--cors-origin",
        "cors_origins",
        multiple=True,
        metavar="ORIGIN",
        help="A site whose pages may call, such as https://chat.example.org.",
    ),
    click.option(
        "--allowed-host",
        "hosts",
        multiple=True,
        metavar="NAME",
        help="Another name of this server, for callers without keys; may be given again.",
    ),
    click.option(
        "--served-model-name",
        "served_model_names",
        multiple=True,
        metavar="NAME",
        help="The model's name in the API; give it again for more names.",
    ),
    click.option(
        "--moderation",
        metavar="MODULE:FUNCTION",
        help="Refuses text of users and of the model.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="Of moss.log in the data directory, which has a line for each request.",
    ),
    *STORE_OPTIONS,
    click.option(
        "--allow-volatile-store",
        is_flag=True,
        help="Start on a store that evicts, or whose crash loses turns.",
    ),
    click.option(
        "--drain",
        "drain_s",
        type=click.FloatRange(0),
        default=30,
        show_default=True,
        metavar="SECONDS",
        help="At a stop, how long running replies may take to end.",
    ),
    click.option("--max-model-len", type=click.IntRange(2), help="Prompt and reply, in tokens."),
    *PLUGIN_OPTIONS,
    click.option(
        "--dialogue",
        type=click.Choice(["plugin", "plain"]),
        help="The model's dialogue format. Default: plugin if its name says so, else plain.",
    ),
)


def serve_settings(fields: dict[str, Any], host: str = "127.0.0.1") -> ServeSettings:
    """The settings of a server that listens on `host` of this machine, and its environment's key.

    Raises ConfigError for a bad `store` or name, a weak key, and a host where a key is needed.
    """
    check_store(fields["store"])
    # A failed start is shown to the user at once instead of being tried again.
    own = {"start_attempts": 1, "hosts": (host, *map(_host_name, fields["hosts"]))}
    settings = ServeSettings.model_validate({**fields, **own}).with_environment(os.environ)
    settings = _with_threads(settings)
    check_exposure(settings, host)
    return settings


def _with_threads(settings: ServeSettings) -> ServeSettings:
    """The same, where all replicas there may be have to do with this machine's cores."""
    if settings.device != "cpu":
        return settings
    num_ranks = settings.tp * settings.replicas.most
    threads = threads_per_rank(num_ranks, settings.threads)
    return settings.model_copy(update={"threads": threads})


def _replicas(value: str) -> Replicas:
    try:
        return Replicas.of(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _host_name(text: str) -> str:
    """`text` as it is compared with a Host header, of which the port does not count."""
    if not _HOST_NAME.fullmatch(text) and not _is_address(text):
        raise ConfigError(f"--allowed-host is a name without scheme or port, not {text!r}")
    return text.lower()


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
