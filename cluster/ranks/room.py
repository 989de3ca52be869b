"""Whether any node of a cluster can ever hold one group of ranks.

Ray lets a placement group that fits nowhere wait for ever, for its autoscaler may add a node. So
this asks what nodes there are, and which ones the autoscaler may add.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import ray
import yaml

from cluster.ranks.placement import rank_bundle
from moss_tp.errors import ConfigError

Resources = Mapping[str, float]
HEAD = "node:__internal_head__"  # a resource that Ray gives the head node
JOIN_S = 5.0  # for nodes that are about to join
POLL_S = 0.5
ASK_S = 10.0


def check_room(tp_size: int, device: str) -> None:
    """Raises ConfigError if no node of the running Ray has what `tp_size` ranks need, nor any that
    its autoscaler may add. One that has it, but not free, counts."""
    needed = {name: count * tp_size for name, count in rank_bundle(device).items()}
    deadline = time.monotonic() + JOIN_S
    while not holds(nodes := _nodes(), needed):
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_S)
    else:
        return
    types = _node_types()
    if types is None or holds(types, needed):
        return
    raise ConfigError(message(tp_size, needed, nodes, types))


def holds(nodes: Sequence[Resources], needed: Resources) -> bool:
    """Whether one of `nodes` has all that is `needed`."""
    return any(all(node.get(name, 0) >= count for name, count in needed.items()) for node in nodes)


def message(
    tp_size: int, needed: Resources, nodes: Sequence[Resources], types: Sequence[Resources]
) -> str:
    """What is needed on one node, and the most that one has of each resource."""
    most = {name: max((n.get(name, 0) for n in [*nodes, *types]), default=0) for name in needed}
    asked = " and ".join(f"{count:g} {name}s" for name, count in needed.items())
    there = " and ".join(f"{count:g} {name}s" for name, count in most.items())
    grown = ", those that the autoscaler may add included," if types else ""
    return (
        f"no node can hold a group of {tp_size} ranks, which are all on one: it takes {asked}, and "
        f"no node{grown} has more than {there}; lower tp, or add such a node"
    )


def node_types(config: Mapping[str, Any]) -> list[Resources]:
    """The resources of the nodes that an autoscaler of this configuration may add."""
    found = config.get("available_node_types", {}).values()
    limit = config.get("max_workers", 0)
    return [each.get("resources", {}) for each in found if each.get("max_workers", limit) > 0]


def _nodes() -> list[Resources]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def _node_types() -> Sequence[Resources] | None:
    """None if there may be an autoscaler of which nothing is known."""
    address = ray.get_runtime_context().gcs_address
    task = ray.remote(_types_of_monitor).options(num_cpus=0, resources={HEAD: 0.001})
    types: Sequence[Resources] | None = ray.get(task.remote(address), timeout=ASK_S)
    return types


def _types_of_monitor(gcs_address: str) -> Sequence[Resources] | None:
    """Of the autoscaler, Ray's monitor, which runs on the head and gets its configuration as a
    file. Without one it adds nothing; on Kubernetes it runs elsewhere, unseen."""
    for process in psutil.process_iter(["cmdline"]):
        command: list[str] = process.info["cmdline"] or []
        if f"--gcs-address={gcs_address}" not in command or not _is_monitor(command):
            continue
        for argument in command:
            name, _, value = argument.partition("=")
            if name == "--autoscaling-config":
                return node_types(yaml.safe_load(Path(value).expanduser().read_text("utf-8")))
        return []
    return None


def _is_monitor(command: Sequence[str]) -> bool:
    return any(argument.endswith("/monitor.py") for argument in command)
