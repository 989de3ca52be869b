"""Outside names become an EngineConfig; what cannot work says so."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from moss_tp.errors import ConfigError
from serve_app.settings import ServeSettings

STORE = "redis://localhost:6379/0"


def test_dtype_follows_the_device() -> None:
    on_cpu = ServeSettings(model="m", store=STORE)
    on_cuda = ServeSettings(model="m", store=STORE, device="cuda")
    chosen = ServeSettings(model="m", store=STORE, dtype="bfloat16")
    assert on_cpu.engine_config("/m").dtype == "float32"
    assert on_cuda.engine_config("/m").dtype == "float16"
    assert chosen.engine_config("/m").dtype == "bfloat16"


def test_the_engine_gets_what_was_set() -> None:
    settings = ServeSettings(model="m", store=STORE, tp=4, max_model_len=512, kv_cache_bytes=1000)
    config = settings.engine_config("/models/m")
    assert (config.model, config.tp_size, config.device) == ("/models/m", 4, "cpu")
    assert (config.max_model_len, config.kv_cache_bytes) == (512, 1000)


def test_every_plugin_with_a_back_end_by_default(tmp_path: Path) -> None:
    plain = ServeSettings(model="m", store=STORE)
    with_documents = ServeSettings(model="m", store=STORE, documents_dir=tmp_path)
    assert plain.plugin_names == ("calculator", "equation_solver")
    assert with_documents.plugin_names == ("web_search", "calculator", "equation_solver")


def test_some_plugins_in_their_own_order() -> None:
    settings = ServeSettings(model="m", store=STORE, plugins=("equation_solver", "calculator"))
    assert settings.plugin_names == ("calculator", "equation_solver")
    assert ServeSettings(model="m", store=STORE, plugins=()).plugin_names == ()


def test_a_plugin_without_a_back_end() -> None:
    settings = ServeSettings(model="m", store=STORE, plugins=("text_to_image",))
    with pytest.raises(ConfigError, match="text_to_image"):
        _ = settings.plugin_names


def test_the_models_name(tmp_path: Path) -> None:
    directory = tmp_path / "moss-7b"
    directory.mkdir()
    assert ServeSettings(model=str(directory), store=STORE).model_name == "moss-7b"
    hub_id = "fnlp/moss-moon-003-sft"
    assert ServeSettings(model=hub_id, store=STORE).model_name == hub_id


@pytest.mark.parametrize("field", [{"tp": 0}, {"device": "tpu"}, {"dtype": "int8"}, {"tpp": 2}])
def test_wrong_fields_are_named(field: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(field))):
        ServeSettings.model_validate({"model": "m", "store": STORE, **field})
