"""`moss keys` beside a running store, on a URL, and where no server runs."""

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from moss_tp.errors import ConfigError
from serve_app.access.api_key import ApiKey
from serve_app.access.key_book import KeyBook
from serve_app.access.principal import Limits
from serve_app.cli.stored.keys import command
from serve_app.cli.stored.location import STORE_FOLDER
from serve_app.errors import StoreInUseError
from serve_app.store.attach import attached_store
from serve_app.store.data_directory import LOCK
from serve_app.store.embedded import EmbeddedStore

SCOPES = ("--models", "moss, gpt-4o", "--plugins", "", "--admin", "--name", "laptop")
LIMITS = ("--requests-per-s", "0.5", "--tokens-per-min", "9000", "--running-turns", "2")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(each) for each in arguments], catch_exceptions=False)


def find(url: str, secret: str) -> ApiKey | None:
    async def ask() -> ApiKey | None:
        book = KeyBook(url)
        try:
            return await book.find(secret)
        finally:
            await book.close()

    return asyncio.run(ask())


def test_a_new_key_is_alone_on_stdout_and_opens_the_door(store_url: str) -> None:
    added = run("add", "--owner", "ann", *SCOPES, *LIMITS, "--store", store_url)
    secret = added.stdout.removesuffix("\n")
    key = find(store_url, secret)
    assert key is not None and (key.owner, key.name, key.is_admin) == ("ann", "laptop", True)
    assert (key.models, key.plugins) == (("moss", "gpt-4o"), ())
    assert key.limits == Limits(0.5, 9000, 2)
    assert added.stderr == f"moss: key {key.id} of ann; it is shown only now\n"


def test_a_key_without_scopes_may_do_everything_but_administer(store_url: str) -> None:
    key = find(store_url, run("add", "--owner", "bob", "--store", store_url).stdout.strip())
    assert key is not None and not key.is_admin
    assert (key.models, key.plugins, key.limits) == (None, None, Limits())


def test_the_list_shows_keys_and_never_secrets(store_url: str) -> None:
    secret = run("add", "--owner", "cleo", *SCOPES, *LIMITS, "--store", store_url).stdout.strip()
    key = find(store_url, secret)
    assert key is not None
    header, *rows = run("list", "--store", store_url).stdout.splitlines()
    assert header.split()[:2] == ["id", "owner"]
    (row,) = (row for row in rows if row.startswith(key.id))
    for shown in ("cleo", "models: moss,gpt-4o; plugins: none; admin", "0.5 requests/s"):
        assert shown in row
    assert secret not in row and key.digest not in row and row.endswith("  -")
    assert run("revoke", key.id, "--store", store_url).exit_code == 0
    assert find(store_url, secret) is None
    (row,) = (r for r in run("list", "--store", store_url).stdout.splitlines() if key.id in r)
    assert not row.endswith("-")
    with pytest.raises(ConfigError, match="there is no key 'unknown'"):
        run("revoke", "unknown", "--store", store_url)


def test_keys_are_made_beside_a_running_server(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path / STORE_FOLDER) as server:
        pid = server.pid
        secret = run("add", "--owner", "ann", "--data-dir", tmp_path).stdout.strip()
        key = find(server.url, secret)
        assert key is not None
        run("revoke", key.id, "--data-dir", tmp_path)
        assert find(server.url, secret) is None
        assert server.pid == pid


def test_keys_are_made_before_and_after_a_server_runs(tmp_path: Path) -> None:
    secret = run("add", "--owner", "ann", "--data-dir", tmp_path).stdout.strip()
    with EmbeddedStore(tmp_path / STORE_FOLDER) as server:
        key = find(server.url, secret)
    assert key is not None
    assert key.id in run("list", "--data-dir", tmp_path).stdout
    run("revoke", key.id, "--data-dir", tmp_path)
    with EmbeddedStore(tmp_path / STORE_FOLDER) as server:
        assert find(server.url, secret) is None


def test_only_add_makes_a_store(tmp_path: Path) -> None:
    for arguments in (("list",), ("revoke", "some")):
        with pytest.raises(ConfigError, match="no store in"):
            run(*arguments, "--data-dir", tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(ConfigError, match="--store is embedded or a URL"):
        run("list", "--store", "memory")


def test_a_server_that_has_the_directory_but_no_store_is_waited_for(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path):
        (tmp_path / "socket").unlink()
        with (
            pytest.raises(StoreInUseError, match="in use"),
            attached_store(tmp_path, timeout_s=0.3),
        ):
            raise AssertionError("it is not ours")
    assert (tmp_path / LOCK).exists()


@pytest.mark.parametrize("limit", ["--requests-per-s", "--tokens-per-min", "--running-turns"])
def test_a_limit_is_positive(store_url: str, limit: str) -> None:
    refused = CliRunner().invoke(command, ["add", "--owner", "ann", limit, "0"])
    assert refused.exit_code == 2 and limit in refused.output
