"""The flags of `moss serve` become ServeSettings."""

from pathlib import Path
from typing import Any

import pytest

from moss_tp.errors import ConfigError
from serve_app.cli.serve.command import command
from serve_app.cli.serve.options import serve_settings
from serve_app.settings import ServeSettings

OF_THE_COMMAND = {"host", "port", "data_dir"}


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


def test_a_local_server_drains_for_half_a_minute_and_starts_once() -> None:
    settings = serve_settings(fields_of())
    assert (settings.drain_s, settings.start_attempts) == (30, 1)
    assert serve_settings(fields_of("--drain", "0.5")).drain_s == 0.5


def test_a_store_is_embedded_or_a_url() -> None:
    with pytest.raises(ConfigError, match="--store is embedded or a URL"):
        serve_settings(fields_of("--store", "memory"))
