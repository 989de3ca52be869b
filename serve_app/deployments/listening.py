"""Where Serve's proxies listen, as a replica can learn it, and where the replica itself can."""

from importlib import import_module
from typing import Any

import ray


def own_host() -> str:
    """The address by which the other processes of a cluster reach this one."""
    if not ray.is_initialized():
        return "127.0.0.1"
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def listening_host() -> str | None:
    """The host of Serve's HTTP options; None outside a cluster."""
    if not ray.is_initialized():
        return None
    context: Any = import_module("ray.serve.context")  # private
    client = context._get_global_client(raise_if_no_controller_running=False)
    return None if client is None else str(client.http_config.host)
