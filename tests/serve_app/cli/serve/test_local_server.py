"""Starting and ending a server, on a fake Ray Serve: progress, causes of failure, the end."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
from ray import serve
from ray.serve.schema import ApplicationStatus

from cluster.launch.local_ray import Dashboard, LocalRay
from cluster.scaling.replicas import Replicas
from serve_app.cli.serve import first_token
from serve_app.cli.serve import local_server as module
from serve_app.cli.serve.first_token import has_token_come
from serve_app.cli.serve.local_server import StartError, session_store
from serve_app.cli.serve.ray_watch import RayDiedError
from serve_app.cli.serve.stop_signals import StopRequested
from serve_app.deployments.serve_environment import SERVE_ENVIRONMENT
from serve_app.http.origin import CORS_ORIGINS, origins_from_environment
from serve_app.settings import ServeSettings

SETTINGS = ServeSettings(model="m", store="redis://localhost", tp=2, replicas=Replicas.of(3))
DASHBOARD = Dashboard("http://127.0.0.1:8265", Path("/ray/token"))
TRACE = """\
Traceback (most recent call last):
  File "a.py", line 1
ray.exceptions.RayTaskError(CheckpointError): Traceback: b.py
moss_tp.errors.CheckpointError: no model-00002 in /m
The deployment failed to start 1 times in a row.
"""


@dataclass
class FakeApp:
    status: ApplicationStatus
    message: str = ""
    deployments: dict[str, Any] = field(default_factory=dict)


@dataclass
class FakeServe:
    """Reports `apps` one by one; `calls` are the functions that were called."""

    apps: list[FakeApp]
    calls: list[str] = field(default_factory=list)
    gives_tokens: bool = True

    @property
    def applications(self) -> dict[str, FakeApp]:
        return {module.APP_NAME: self.apps.pop(0)}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeServe:
    @contextmanager
    def local_ray(num_cpus: int, *, has_dashboard: bool) -> Iterator[LocalRay]:
        made.calls.append(f"ray {num_cpus}")
        yield LocalRay(Path(), DASHBOARD if has_dashboard else None)
        made.calls.append("ray ends")

    def record(name: str) -> Callable[..., None]:
        return lambda *arguments, **options: made.calls.append(name)

    def run_many(*arguments: object, **options: object) -> list[str]:
        made.calls.append("run_many")
        return ["ingress"]

    @contextmanager
    def drained_on_stop(ingress: object, within_s: float, say: object) -> Iterator[None]:
        made.calls.append(f"serve {ingress}")
        yield
        made.calls.append("no stop")

    def token(ingress: object, check_stop: object) -> bool:
        made.calls.append("token")
        return made.gives_tokens

    made = FakeServe([FakeApp(ApplicationStatus.RUNNING)])
    monkeypatch.setattr(module, "local_ray", local_ray)
    monkeypatch.setattr(module, "POLL_S", 0)
    monkeypatch.setattr("serve_app.app.build_app", lambda settings: "app")
    monkeypatch.setattr(serve, "RunTarget", lambda app, name: app)
    monkeypatch.setattr(module, "drained_on_stop", drained_on_stop)
    monkeypatch.setattr(module, "has_token_come", token)
    monkeypatch.setattr(serve, "run_many", run_many)
    monkeypatch.setattr(serve, "start", record("start"))
    monkeypatch.setattr(module, "_end_serve", record("shutdown"))
    monkeypatch.setattr(serve, "status", lambda: made)
    return made


def run(
    fake: FakeServe,
    error: BaseException | None = None,
    stops_after: int = 99,
    settings: ServeSettings = SETTINGS,
    has_dashboard: bool = False,
) -> list[str]:
    """Serves for a moment, which ends in `error`; what was said."""
    said: list[str] = []
    checks = iter(range(stops_after))

    def check_stop() -> None:
        if next(checks, None) is None:
            raise StopRequested

    server = module.local_server(
        settings, "127.0.0.1", 8000, said.append, check_stop, has_dashboard=has_dashboard
    )
    with server:
        fake.calls.append("ready")
        if error is not None:
            raise error
    return said


def test_a_server_is_started_and_ended_in_order(fake: FakeServe) -> None:
    assert run(fake) == [
        "starting Ray",
        "loading m on 2 tensor-parallel ranks, for each of 3 replicas",
    ]
    served = ["token", "serve ingress", "ready", "no stop"]
    # A CPU for each rank of each replica, and one for the rest.
    assert fake.calls == ["ray 7", "start", "run_many", *served, "shutdown", "ray ends"]


def test_the_address_of_the_dashboard_is_said(fake: FakeServe) -> None:
    line = "Ray's dashboard: http://127.0.0.1:8265 (it asks for the token in /ray/token)"
    assert run(fake, has_dashboard=True)[1] == line


def test_a_model_that_no_request_reaches_is_no_server(fake: FakeServe) -> None:
    fake.gives_tokens = False
    with pytest.raises(StartError, match="no token came"):
        run(fake)
    assert fake.calls[-1] == "shutdown"


def test_a_dead_ray_is_not_shut_down(fake: FakeServe) -> None:
    for error in (RayDiedError("gone"), StopRequested()):
        fake.apps = [FakeApp(ApplicationStatus.RUNNING)]
        with pytest.raises(type(error)):
            run(fake, error)
    assert fake.calls.count("shutdown") == 1


@pytest.mark.parametrize("stops_after", [0, 1, 3])
def test_a_stop_during_the_start_cleans_up(fake: FakeServe, stops_after: int) -> None:
    fake.apps = [FakeApp(ApplicationStatus.DEPLOYING)] * 9
    with pytest.raises(StopRequested):
        run(fake, stops_after=stops_after)
    assert "ready" not in fake.calls
    assert ("start" in fake.calls) == ("shutdown" in fake.calls) == (stops_after > 0)


def test_a_long_load_is_reported(fake: FakeServe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRESS_EVERY_S", -1)
    fake.apps = [*[FakeApp(ApplicationStatus.DEPLOYING)] * 2, *fake.apps]
    assert run(fake)[2:] == ["still loading (0 s)"] * 2


@pytest.mark.parametrize(
    ("messages", "cause"),
    [
        ((TRACE,), "no model-00002 in /m"),
        (("", "ValueError: bug\n", TRACE), "no model-00002 in /m"),
        (("no room",), "no room"),
        (("", " "), "the deployment failed to start"),
    ],
)
def test_a_failed_start_reports_the_innermost_cause(
    fake: FakeServe, messages: Sequence[str], cause: str
) -> None:
    deployments = {str(i): FakeApp(ApplicationStatus.DEPLOYING, m) for i, m in enumerate(messages)}
    fake.apps = [FakeApp(ApplicationStatus.DEPLOY_FAILED, "", deployments)]
    with pytest.raises(StartError) as raised:
        run(fake)
    assert str(raised.value) == cause
    assert fake.calls[-1] == "shutdown"


def test_serve_gets_time_to_end_in_order_once_it_serves(
    fake: FakeServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []
    monkeypatch.setattr(module, "_end_serve", limits.append)
    run(fake)
    fake.apps = [FakeApp(ApplicationStatus.DEPLOYING)]
    with pytest.raises(StopRequested):
        run(fake, stops_after=2)
    assert limits == [module.SHUTDOWN_S, module.ABORT_S]


def test_serve_gets_our_defaults_but_for_what_the_user_has_set(
    fake: FakeServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    period, timeout, *_ = SERVE_ENVIRONMENT
    for name in SERVE_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(period, "7")
    run(fake)
    assert os.environ[period] == "7"
    assert os.environ[timeout] == SERVE_ENVIRONMENT[timeout]


def test_the_proxies_learn_which_pages_may_read_answers(
    fake: FakeServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CORS_ORIGINS, "https://of-another-server.example")
    allowed = ("https://a.example", "https://b.example")
    run(fake, settings=SETTINGS.model_copy(update={"cors_origins": allowed}))
    assert origins_from_environment() == set(allowed)


def test_the_wait_ends_with_what_check_raises() -> None:
    checks = iter([None, None, RayDiedError("gone")])

    def check() -> None:
        if (error := next(checks)) is not None:
            raise error

    with pytest.raises(RayDiedError):
        module.wait_for_stop(check)


def test_the_store_is_the_users_or_lives_for_the_block(tmp_path: Path) -> None:
    with session_store("redis://host:1", tmp_path / "none") as url:
        assert url == "redis://host:1"
    assert not (tmp_path / "none").exists()
    with session_store("embedded", tmp_path / "store") as url:
        socket = Path(url.removeprefix("unix://"))
        assert socket.is_socket()
    assert not socket.exists()


class FakeIngress:
    """Says what `answers` say, one after the other, and then the last again."""

    def __init__(self, *answers: Callable[[], bool]) -> None:
        self._answers = list(answers)
        self.num_asked = 0

    @property
    def has_served(self) -> Self:
        return self

    def remote(self) -> Self:
        return self

    def result(self, timeout_s: float) -> bool:
        self.num_asked += 1
        return self._answers[min(self.num_asked, len(self._answers)) - 1]()


def late() -> bool:
    raise TimeoutError


def test_the_start_waits_for_a_token() -> None:
    ingress = FakeIngress(lambda: False, late, lambda: True)
    assert has_token_come(ingress, lambda: None)
    assert ingress.num_asked == 3


@pytest.mark.parametrize("answer", [late, lambda: False])
def test_it_does_not_wait_for_ever(
    answer: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_token, "TOKEN_S", 0.01)
    assert not has_token_come(FakeIngress(answer), lambda: None)


def test_a_stop_ends_the_wait() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        has_token_come(FakeIngress(lambda: False), stop)
