"""The flags of `moss serve` become ServeSettings."""

import os
from pathlib import Path
from typing import Any

import click
import pytest

from cluster.scaling.replicas import Replicas
from moss_tp import device
from moss_tp.errors import ConfigError
from serve_app.api_secret import digest_of
from serve_app.cli.serve.command import command
from serve_app.cli.serve.options import serve_settings
from serve_app.settings import ServeSettings

OF_THE_COMMAND = {"host", "port", "data_dir", "has_dashboard"}


def fields_of(*arguments: str) -> dict[str, Any]:
    """What the command passes to `serve_settings` for these arguments."""
    values = command.make_context("serve", list(arguments)).params
    return {name: value for name, value in values.items() if name not in OF_THE_COMMAND}


def test_every_flag_is_a_field_of_the_settings() -> None:
    assert set(fields_of()) <= set(ServeSettings.model_fields)


def test_flags_reach_their_fields(tmp_path: Path) -> None:
    settings = serve_settings(
        fields_of("--tp", "4", "--dtype", "float16", "--documents", str(tmp_path))
    )
    assert (settings.tp, settings.dtype, settings.documents_dir) == (4, "float16", tmp_path)
    assert (settings.store, settings.max_model_len) == ("embedded", None)


def test_replicas_are_a_number_or_a_range() -> None:
    assert serve_settings(fields_of()).replicas == Replicas(1, 1)
    settings = serve_settings(fields_of("--replicas", "0..2", "--scale-down-after", "9"))
    assert (settings.replicas, settings.scale_down_after_s) == (Replicas(0, 2), 9)
    with pytest.raises(click.BadParameter, match=r"like 2 or 1\.\.4"):
        fields_of("--replicas", "4..1")


@pytest.mark.parametrize(
    ("flags", "threads"),
    [
        (("--tp", "1"), 8),
        (("--tp", "2"), 4),
        (("--tp", "1", "--replicas", "2"), 4),
        (("--tp", "2", "--replicas", "0..3"), 1),
        (("--tp", "4", "--replicas", "9"), 1),
        (("--tp", "1", "--replicas", "2", "--threads", "7"), 7),
        (("--device", "cuda", "--replicas", "2"), None),
    ],
)
def test_all_ranks_share_the_cores(
    flags: tuple[str, ...], threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(device, "_initial_environment", dict)
    settings = serve_settings(fields_of(*flags))
    assert settings.threads == settings.engine_config("m").num_threads == threads


def test_omp_num_threads_is_what_each_rank_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_initial_environment", lambda: {"OMP_NUM_THREADS": "3"})
    assert serve_settings(fields_of("--replicas", "4")).threads == 3


def test_a_local_server_drains_for_half_a_minute_and_starts_once() -> None:
    settings = serve_settings(fields_of())
    assert (settings.drain_s, settings.start_attempts) == (30, 1)
    assert serve_settings(fields_of("--drain", "0.5")).drain_s == 0.5


def test_logs_are_text_unless_json_is_asked_for() -> None:
    assert serve_settings(fields_of()).log_format == "text"
    assert serve_settings(fields_of("--log-format", "json")).log_format == "json"


def test_a_store_is_embedded_or_a_url() -> None:
    with pytest.raises(ConfigError, match="--store is embedded or a URL"):
        serve_settings(fields_of("--store", "memory"))


def test_the_door_is_set_by_flags() -> None:
    flags = ("--auth", "required", "--cors-origin", "https://a.org", "--cors-origin", "*")
    names = ("--served-model-name", "gpt-4o", "--served-model-name", "moss")
    settings = serve_settings(fields_of(*flags, *names), "192.0.2.7")
    assert settings.requires_key and settings.hosts == ("192.0.2.7",)
    assert settings.cors_origins == ("https://a.org", "*")
    assert settings.model_names == ("gpt-4o", "moss")


def test_a_server_has_more_names_by_a_flag() -> None:
    flags = ("--no-auth", "--allowed-host", "MOSS.lan", "--allowed-host", "fd00::5")
    settings = serve_settings(fields_of(*flags), "0.0.0.0")
    assert settings.hosts == ("0.0.0.0", "moss.lan", "fd00::5")


@pytest.mark.parametrize("name", ["http://moss.lan", "moss.lan:80", "", "a b", "moss..lan"])
def test_a_name_of_the_server_is_only_a_name(name: str) -> None:
    with pytest.raises(ConfigError, match="--allowed-host is a name without scheme or port"):
        serve_settings(fields_of("--allowed-host", name))


def test_a_local_server_needs_no_key_unless_the_environment_has_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not serve_settings(fields_of()).requires_key
    monkeypatch.setenv("MOSS_API_KEY", "correct-horse")
    settings = serve_settings(fields_of())
    assert settings.requires_key and settings.api_key_sha256 == digest_of("correct-horse")
    assert "MOSS_API_KEY" not in os.environ and "correct-horse" not in repr(settings)
    for flags in (("--auth", "none"), ("--no-auth",)):
        monkeypatch.setenv("MOSS_API_KEY", "correct-horse")
        assert not serve_settings(fields_of(*flags)).requires_key


def test_other_machines_need_a_key_or_a_word_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.7"):
        for flags in ((), ("--auth", "none")):
            with pytest.raises(ConfigError, match=f"other machines reach {host}"):
                serve_settings(fields_of(*flags), host)
        assert not serve_settings(fields_of("--no-auth"), host).requires_key
        monkeypatch.setenv("MOSS_API_KEY", "correct-horse")
        assert serve_settings(fields_of(), host).requires_key
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        serve_settings(fields_of("--auth", "none"), host)


@pytest.mark.parametrize("origin", ["", "example.org", "https://a.org/", "https://", "a.org:80"])
def test_a_cors_origin_has_a_browsers_form(origin: str) -> None:
    with pytest.raises(ConfigError, match="--cors-origin is scheme"):
        serve_settings(fields_of("--cors-origin", origin))
