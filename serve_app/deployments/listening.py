"""Where Serve's proxies listen, as a replica can learn it."""

from importlib import import_module
from typing import Any

import ray


def listening_host() -> str | None:
    """The host of Serve's HTTP options; None outside a cluster."""
    if not ray.is_initialized():
        return None
    context: Any = import_module("ray.serve.context")  # private
    client = context._get_global_client(raise_if_no_controller_running=False)
    return None if client is None else str(client.http_config.host)
