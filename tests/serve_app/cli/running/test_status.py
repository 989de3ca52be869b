"""`moss status` of servers over fakes: what it shows, to whom, and its exit status."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from click.testing import CliRunner, Result

from serve_app.access.gate import Gate
from serve_app.cli.running import status
from serve_app.client.server_state import StateError
from serve_app.groups import GroupState
from serve_app.http.app import create_http_app
from tests.support.fakes.gates import FakeGate
from tests.support.http_server import serving
from tests.support.site import Site


async def run(site: Site, *flags: str, gate: Gate | None = None) -> Result:
    service = site.service if gate is None else replace(site.service, gate=gate, requires_key=True)
    async with serving(create_http_app(service)) as url:
        invoke: Callable[..., Result] = CliRunner().invoke
        return await asyncio.to_thread(invoke, status.command, ["--url", url, *flags])


async def test_a_ready_server(site: Site) -> None:
    shown = await run(site)
    assert shown.exit_code == status.READY, shown.stdout
    first, header, row, turns, store = shown.stdout.splitlines()
    assert "moss-nano" in first and first.endswith("  ready")
    assert header.split()[:3] == ["replica", "state", "ranks"]
    assert row.split()[:3] == ["one", "serving", "2"] and "10, 11" in row and "3 of 8" in row
    assert turns.endswith(": 0") and store == "session store: answers"


async def test_json_has_all_counters(site: Site) -> None:
    state = json.loads((await run(site, "--json")).stdout)
    assert state["ready"] and state["groups"][0]["state"] == "serving"
    assert state["replicas"][0]["num_blocks"] == 8
    assert (state["running_turns"], state["store"]) == (0, True)


async def test_a_server_whose_group_has_failed_is_not_ready(site: Site) -> None:
    site.probe.healthy = site.probe.ready = False
    shown = await run(site)
    assert shown.exit_code == status.NOT_READY
    assert "not ready" in shown.stdout and "failed" in shown.stdout


async def test_a_group_that_loads_is_shown_with_its_phase(site: Site) -> None:
    async def groups() -> tuple[GroupState, ...]:
        return (GroupState("loading", "one", 2, "weights"),)

    site.probe.groups = groups  # type: ignore[method-assign]
    assert "loading (weights)" in (await run(site)).stdout


async def test_without_a_key_it_shows_the_groups(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MOSS_API_KEY", raising=False)
    shown = await run(site, gate=FakeGate())
    assert shown.exit_code == status.READY
    assert "serving" in shown.stdout and "10, 11" not in shown.stdout
    assert shown.stdout.splitlines()[-1].startswith("set MOSS_API_KEY")


async def test_without_a_server_it_says_where_it_looked() -> None:
    shown = await asyncio.to_thread(
        CliRunner().invoke, status.command, ["--url", "http://127.0.0.1:1"]
    )
    assert isinstance(shown.exception, StateError)
    assert "http://127.0.0.1:1" in str(shown.exception)
