"""While a server runs: the store that lives with it, and the watch over Ray."""

from pathlib import Path

import pytest
import ray

from serve_app.cli.serve import local_server
from serve_app.cli.serve.local_server import RayDiedError, session_store, watch_ray


def test_the_watch_ends_when_no_node_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    views = [[{"Alive": True}, {"Alive": False}], [{"Alive": True}], [{"Alive": False}]]
    monkeypatch.setattr(ray, "nodes", lambda: views.pop(0))
    monkeypatch.setattr(local_server, "WATCH_S", 0.01)
    checks: list[None] = []
    with pytest.raises(RayDiedError, match="Ray has died"):
        watch_ray(lambda: checks.append(None))
    assert views == []
    assert len(checks) >= 2


def test_the_store_is_the_users_or_lives_for_the_block(tmp_path: Path) -> None:
    with session_store("redis://host:1", tmp_path / "none") as url:
        assert url == "redis://host:1"
    assert not (tmp_path / "none").exists()
    with session_store("embedded", tmp_path / "store") as url:
        socket = Path(url.removeprefix("unix://"))
        assert socket.is_socket()
    assert not socket.exists()
