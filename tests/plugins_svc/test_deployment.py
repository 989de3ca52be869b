"""The plugin deployments on a small, real Ray cluster."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ray import serve

from cluster.launch.local_ray import local_ray
from plugins_svc import deployment
from plugins_svc.deployment import PluginReplica, plugin_deployment
from plugins_svc.equation_solver.plugin import NUM_PROCESSES
from plugins_svc.sdk.errors import UnknownPluginError
from plugins_svc.sdk.output import PluginOutput
from tests.plugins_svc.web_search.pdf_files import pdf
from tests.support.waiting import wait_until

ANSWER_TIMEOUT_S = 120
CLOSE_TIMEOUT_S = 120
START_TIMEOUT_S = 300
ROOT = Path(__file__).parents[2]
WORKER = b"plugins_svc.equation_solver.worker"


@pytest.fixture(scope="module")
def one_serve() -> Iterator[None]:
    """Started once: on a busy machine each start takes long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_gcs_server_port_wait_time_s", str(START_TIMEOUT_S))
        with local_ray(num_cpus=1):
            serve.start(proxy_location="Disabled")  # no HTTP, so no port
            yield
            serve.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture
def own_serve(one_serve: None) -> Iterator[None]:
    yield
    for name in serve.status().applications:
        serve.delete(name)


class ClosingLog:
    """A plugin that only writes down that it was closed. It is broken if it has no log."""

    def __init__(self, log: Path | None) -> None:
        self._log = log

    async def ready(self) -> str:
        return ""

    async def run(self, argument: str) -> PluginOutput:
        return PluginOutput.no_result()

    async def check(self) -> None:
        if self._log is None:
            raise RuntimeError("no log")

    def close(self) -> None:
        if self._log is not None:
            self._log.write_text("closed", "utf-8")


class LoggingReplica(PluginReplica):
    """The replica of the product over a ClosingLog."""

    def __init__(self, log: Path | None) -> None:
        self._plugin = ClosingLog(log)


def solver_workers() -> set[int]:
    """Process ids of the solver workers that run from this checkout."""
    return {int(path.name) for path in Path("/proc").glob("[0-9]*") if _is_our_worker(path)}


def _is_our_worker(process: Path) -> bool:
    try:
        command = (process / "cmdline").read_bytes().split(b"\0")
        return WORKER in command and str(ROOT).encode() in (process / "environ").read_bytes()
    except OSError:  # it has ended, or is not ours to read
        return False


def _is_below_this_process(pid: int) -> bool:
    """Tests beside this one start servers, too."""
    try:
        return os.getpid() in {parent.pid for parent in psutil.Process(pid).parents()}
    except psutil.NoSuchProcess:
        return False


def test_the_deployment_is_named_after_its_plugin() -> None:
    application = plugin_deployment("calculator", {}, {"max_ongoing_requests": 7})
    assert application._bound_deployment.name == "plugin_calculator"
    assert application._bound_deployment.max_ongoing_requests == 7


def test_each_plugin_answers_in_its_own_deployment(own_serve: None) -> None:
    calls = [
        ("calculator", "5^3", PluginOutput(True, ("125",))),
        ("equation_solver", "2x=6", PluginOutput(True, ("x = 3",))),
        ("calculator", "9**9**9**9", PluginOutput.no_result()),
    ]
    handles = {
        name: serve.run(plugin_deployment(name, {}, {}), name=name, route_prefix=None)
        for name in ("calculator", "equation_solver")
    }
    for name, argument, expected in calls:
        assert handles[name].run.remote(argument).result(timeout_s=ANSWER_TIMEOUT_S) == expected


def test_a_replica_closes_its_plugin_when_it_ends(own_serve: None, tmp_path: Path) -> None:
    log = tmp_path / "closed"
    application = serve.deployment(name="logging")(LoggingReplica).bind(log)
    serve.run(application, name="logging", route_prefix=None)
    assert not log.exists()
    serve.delete("logging")
    assert log.read_text("utf-8") == "closed"


async def test_a_replica_is_as_healthy_as_its_plugin() -> None:
    await PluginReplica("calculator", {}).check_health()
    with pytest.raises(RuntimeError, match="no log"):
        await LoggingReplica(None).check_health()


async def test_a_replica_is_there_before_its_plugin_has_read_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment, "NOTE_S", 0.01)
    (tmp_path / "long.pdf").write_bytes(pdf(*["tea"] * 3000))
    replica = PluginReplica("web_search", {"documents_dir": tmp_path})
    await replica.check_health()
    assert await replica.note() is None
    while (note := await replica.note()) is None:
        await replica.check_health()
    assert note == f"web search: 1 documents (3000 passages) in {tmp_path}"
    assert await PluginReplica("calculator", {}).note() == ""
    del replica


def test_serve_has_a_stopped_solver_worker_replaced(own_serve: None) -> None:
    """Nobody asks the plugin meanwhile."""
    before = solver_workers()
    options = {"health_check_period_s": 0.5}
    handle = serve.run(
        plugin_deployment("equation_solver", {}, options), name="solver", route_prefix=None
    )
    assert handle.run.remote("2x=6").result(timeout_s=ANSWER_TIMEOUT_S).ok
    workers = solver_workers() - before
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    assert wait_until(lambda: not workers & solver_workers(), ANSWER_TIMEOUT_S)
    assert handle.run.remote("2x=8").result(timeout_s=ANSWER_TIMEOUT_S).ok


def test_no_solver_worker_survives_its_replica(own_serve: None) -> None:
    before = solver_workers()
    application = plugin_deployment("equation_solver", {}, {})
    handle = serve.run(application, name="solver", route_prefix=None)
    assert handle.run.remote("2x=6").result(timeout_s=ANSWER_TIMEOUT_S).ok
    workers = {pid for pid in solver_workers() - before if _is_below_this_process(pid)}
    assert len(workers) == NUM_PROCESSES
    serve.delete("solver")
    assert wait_until(lambda: not workers & solver_workers(), CLOSE_TIMEOUT_S)


def test_a_plugin_that_cannot_start_is_an_error_of_the_replica() -> None:
    with pytest.raises(UnknownPluginError, match="--documents"):
        PluginReplica("web_search", {})
