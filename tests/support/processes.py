"""What other processes do: whether they still run, where they work, which ports they listen on."""

import re
from contextlib import suppress
from pathlib import Path

import psutil

from serve_app.cli.serve.guard import is_alive
from tests.support.waiting import wait_until


def still_alive(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Those that have not ended within the time. A zombie counts as ended."""
    left = processes

    def have_ended() -> bool:
        nonlocal left
        left = [process for process in left if is_alive(process)]
        return not left

    wait_until(have_ended, timeout_s)
    return left


def working_in(directory: Path) -> list[psutil.Process]:
    """All processes with a working directory in `directory`, such as the embedded store."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(directory):
                found.append(process)
    return found


def ray_directory(processes: list[psutil.Process]) -> Path:
    """The temporary directory of the Ray that these processes belong to."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            for argument in process.cmdline():
                if match := re.search(r"/\S*/moss-\d+/ray-\w+", argument):
                    return Path(match[0])
    raise AssertionError("none of these processes is Ray's")


def listening_ports(processes: list[psutil.Process]) -> dict[int, str]:
    """The TCP ports that these processes listen on, with their addresses."""
    pids = {process.pid for process in processes}
    return {
        connection.laddr.port: connection.laddr.ip
        for connection in psutil.net_connections("tcp")
        if connection.laddr and connection.status == psutil.CONN_LISTEN and connection.pid in pids
    }
