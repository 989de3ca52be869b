"""Rolling updates of a server of `tests.proof.serve`, from outside: a line of a file is a name
under which its model is to be served from now on, and every replica of each deployment is
replaced.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.schema import ApplicationStatus

from serve_app.cli.serve.local_server import APP_NAME
from serve_app.settings import ServeSettings

# The file of names; DONE is added to it when the last of them serves.
UPDATES = "PROOF_UPDATES"
DONE = "done"
POLL_S = 0.1

Build = Callable[[ServeSettings], Any]


def follow_updates(build: Build) -> Build:
    """`build`, which keeps the settings and starts to look at the file once."""

    def first(settings: ServeSettings) -> Any:
        updating = threading.Thread(target=_update_often, args=(build, settings), daemon=True)
        updating.start()
        return build(settings)

    return first


def _update_often(build: Build, settings: ServeSettings) -> None:
    file = Path(os.environ[UPDATES])
    while True:
        time.sleep(POLL_S)
        names = file.read_text("utf-8").split() if file.exists() else []
        if names and names[-1] != DONE:
            renamed = settings.model_copy(update={"served_model_names": (names[-1],)})
            target = serve.RunTarget(build(renamed), name=APP_NAME)
            serve.run_many([target], wait_for_applications_running=False)
            while serve.status().applications[APP_NAME].status != ApplicationStatus.RUNNING:
                time.sleep(POLL_S)
            with file.open("a") as log:
                log.write(f"{DONE}\n")
