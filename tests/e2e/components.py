"""The processes of a running server by what they are, for tests that stop or kill them."""

import re
from contextlib import suppress

import psutil

from tests.e2e.moss_process import MossProcess

_NAMES = {
    "store": r"valkey-server",
    "proxy": r"ray::ProxyActor",
    "controller": r"ray::ServeController",
    "ingress": r"ray::ServeReplica:moss:Ingress",
    "replica": r"ray::ServeReplica:moss:MossServer",  # rank 0 of the model
    "rank": r"ray::TPWorker",  # the others
    "plugin": r"ray::ServeReplica:moss:(?!Ingress|MossServer)",
    "gcs": r"gcs_server",
    "raylet": r"/raylet/raylet ",
}
COMPONENTS = tuple(_NAMES)


def processes_of(server: MossProcess, component: str) -> list[psutil.Process]:
    """Those of a component that run now; several for plugins and for ranks."""
    found = []
    for process in server.descendants():
        with suppress(psutil.Error):
            if re.search(_NAMES[component], " ".join(process.cmdline())):
                found.append(process)
    return found
