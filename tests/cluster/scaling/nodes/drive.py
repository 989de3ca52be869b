"""What runs in namespaces of its own: a Ray whose nodes are fake, and a model on GPUs that are.

`python -m tests.cluster.scaling.nodes.drive DIRECTORY` prints what it saw, a line of JSON. Ray's
autoscaler starts and stops nodes; each is a Ray of its own on this machine. It has the ports of its
network for itself, and so may use the usual ones.
"""

import asyncio
import fcntl
import json
import logging
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.cluster.scaling.streams import Streams

HEAD = "f" * 51 + "00000"
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_FAKE_CLUSTER": "1",
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": HEAD,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
}
HEAD_TYPE = "ray.head.default"  # the only name that the provider gives it
TP = 2
MOST = 3
NUM_CLIENTS, STREAM_S = 6, 5.0
IDLE_S = 3.0  # after which a node is stopped
PATIENCE_S = 120.0
SIOCSIFFLAGS, IFF_UP = 0x8914, 1


def cluster(num_nodes: int) -> dict[str, Any]:
    """A head that no rank fits on, and nodes that one replica fits on."""
    empty = ("docker", "auth", "file_mounts")
    none = ("initialization", "setup", "head_setup", "worker_setup")
    starts = ("head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "fake",
        "max_workers": num_nodes,
        "idle_timeout_minutes": IDLE_S / 60,
        "upscaling_speed": 1.0,
        "provider": {
            "type": "external",
            "module": PROVIDER,
            "disable_launch_config_check": True,
            "disable_node_updaters": True,
            "launch_multiple": True,
            "head_node_id": HEAD,
        },
        "available_node_types": {
            HEAD_TYPE: {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
            "gpu": {
                "resources": {"CPU": TP, "GPU": TP, "object_store_memory": 100 << 20},
                "node_config": {},
                "min_workers": 0,
                "max_workers": num_nodes,
            },
        },
        "head_node_type": HEAD_TYPE,
        **{name: {} for name in empty},
        **{f"{name}_commands": [] for name in (*none, *starts)},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
    }


def open_loopback() -> None:
    """A new network's own is closed. See netdevice(7)."""
    flags = struct.pack("16sH22x", b"lo", IFF_UP)
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, flags)


def start_head(directory: Path) -> None:
    config = directory / "cluster.json"
    config.write_text(json.dumps(cluster(MOST)), "utf-8")
    os.environ.update(RAY, RAY_TMPDIR=str(directory))
    arguments = ("--head", "--port=6379", "--num-cpus=1", f"--autoscaling-config={config}")
    limits = ("--include-dashboard=false", f"--object-store-memory={100 << 20}")
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments, *limits]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class Onlooker:
    """`seen` are pairs of replicas that run and nodes besides the head, with seconds."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int, int]] = []
        self._began = time.monotonic()

    def look(self) -> tuple[int, int]:
        import ray
        from ray import serve

        deployment = serve.status().applications["fake"].deployments["Streams"]
        states: dict[Any, int] = deployment.replica_states
        running = sum(n for s, n in states.items() if getattr(s, "value", s) == "RUNNING")
        all_nodes: Any = ray.nodes  # untyped
        nodes = sum(node["Alive"] and "GPU" in node["Resources"] for node in all_nodes())
        now = (running, nodes)
        if not self.seen or self.seen[-1][1:] != now:
            self.seen.append((round(time.monotonic() - self._began, 1), *now))
        return now

    async def wait_for(self, number: int) -> None:
        """So many replicas, each on a node."""
        async with asyncio.timeout(PATIENCE_S):
            while self.look() != (number, number):
                await asyncio.sleep(0.3)


async def run(handle: Any, onlooker: Onlooker) -> list[int]:
    """The lengths of the streams."""
    lengths: list[int] = []
    is_enough = asyncio.Event()

    async def client() -> None:
        while not is_enough.is_set():
            stream = handle.options(stream=True).stream.remote()
            lengths.append(len([number async for number in stream]))

    await onlooker.wait_for(1)
    async with asyncio.TaskGroup() as group:
        for _ in range(NUM_CLIENTS):
            group.create_task(client())
        await onlooker.wait_for(MOST)
        is_enough.set()
    await onlooker.wait_for(1)
    return lengths


def main(directory: Path) -> None:
    open_loopback()
    start_head(directory)
    import ray
    from ray import serve

    from cluster.ranks.placement import STRATEGY, rank_bundle, rank_options
    from cluster.scaling.policy import Scaling
    from cluster.scaling.replicas import Replicas
    from cluster.scaling.serve_policy import autoscaling_config

    ray.init("auto", log_to_driver=False, logging_level=logging.ERROR)
    serve.start(proxy_location="Disabled")
    scaling = Scaling(Replicas(1, MOST), up_after_s=1, down_after_s=3)
    options: dict[str, Any] = {
        "ray_actor_options": rank_options("cuda"),
        "placement_group_bundles": [rank_bundle("cuda")] * TP,
        "placement_group_strategy": STRATEGY,
        "autoscaling_config": autoscaling_config(scaling),
        "graceful_shutdown_timeout_s": 60,
        "graceful_shutdown_wait_loop_s": 0.2,
    }
    application = serve.deployment(**options)(Streams).bind(STREAM_S)
    handle = serve.run(application, name="fake", route_prefix=None)
    onlooker = Onlooker()
    lengths = asyncio.run(run(handle, onlooker))
    print(json.dumps({"lengths": lengths, "seen": onlooker.seen}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
