"""ServeSettings become an EngineConfig; values that cannot work are errors."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from cluster.scaling.replicas import Replicas
from moss_tp.errors import ConfigError
from plugins_svc.registry import SPECS
from serve_app.demo.bundled import BUNDLED_MODEL
from serve_app.prompt.choose import Dialogue
from serve_app.settings import ServeSettings

PLUGIN_MODEL = "fnlp/moss-moon-003-sft-plugin"
STORE = "redis://localhost:6379/0"


def test_dtype_follows_the_device() -> None:
    on_cpu = ServeSettings(model="m", store=STORE)
    on_cuda = ServeSettings(model="m", store=STORE, device="cuda")
    chosen = ServeSettings(model="m", store=STORE, dtype="float32")
    assert on_cpu.engine_config("/m").dtype == "bfloat16"
    assert on_cuda.engine_config("/m").dtype == "float16"
    assert chosen.engine_config("/m").dtype == "float32"


def test_settings_reach_the_engine_config() -> None:
    settings = ServeSettings(model="m", store=STORE, tp=4, max_model_len=512, kv_cache_bytes=1000)
    config = settings.engine_config("/models/m")
    assert (config.model, config.tp_size, config.device) == ("/models/m", 4, "cpu")
    assert (config.max_model_len, config.kv_cache_bytes) == (512, 1000)


def test_all_available_plugins_are_on_by_default(tmp_path: Path) -> None:
    bare = ServeSettings(model=PLUGIN_MODEL, store=STORE)
    with_documents = ServeSettings(model=PLUGIN_MODEL, store=STORE, documents_dir=tmp_path)
    assert bare.plugin_names == ("calculator", "equation_solver")
    assert with_documents.plugin_names == ("web_search", "calculator", "equation_solver")


def test_every_setting_of_a_plugin_is_a_field(tmp_path: Path) -> None:
    names = {setting.name for spec in SPECS for setting in spec.settings}
    assert names <= ServeSettings.model_fields.keys()
    settings = ServeSettings(model=PLUGIN_MODEL, store=STORE, documents_dir=tmp_path)
    assert settings.plugin_settings == {"documents_dir": tmp_path}
    assert ServeSettings(model=PLUGIN_MODEL, store=STORE).plugin_settings == {}


def test_chosen_plugins_keep_mosss_order() -> None:
    settings = ServeSettings(
        model=PLUGIN_MODEL, store=STORE, plugins=("equation_solver", "calculator")
    )
    assert settings.plugin_names == ("calculator", "equation_solver")
    assert ServeSettings(model=PLUGIN_MODEL, store=STORE, plugins=()).plugin_names == ()


def test_an_unavailable_plugin_is_a_config_error() -> None:
    settings = ServeSettings(model=PLUGIN_MODEL, store=STORE, plugins=("text_to_image",))
    with pytest.raises(ConfigError, match="no plugin text_to_image: available are calculator"):
        _ = settings.plugin_names


@pytest.mark.parametrize(
    ("model", "dialogue"),
    [
        ("fnlp/moss-moon-003-sft-plugin", "plugin"),
        ("fnlp/moss-moon-003-sft-plugin-int4", "plugin"),
        ("fnlp/moss-moon-003-sft-plugin-int8", "plugin"),
        ("/m/models--fnlp--moss-moon-003-sft-plugin/snapshots/0a1b2c3d", "plugin"),
        ("fnlp/moss-moon-003-sft", "plain"),
        ("fnlp/moss-moon-003-sft-int4", "plain"),
        ("fnlp/moss-moon-003-base", "plain"),
        ("/m/no-plugins", "plain"),
        ("/moss-plugin/moss-moon-003-sft", "plain"),
        (str(BUNDLED_MODEL), "plugin"),
    ],
)
def test_the_dialogue_follows_the_name_of_the_model(model: str, dialogue: Dialogue) -> None:
    assert ServeSettings(model=model, store=STORE).resolved_dialogue == dialogue
    for chosen in ("plugin", "plain"):
        settings = ServeSettings.model_validate(
            {"model": model, "store": STORE, "dialogue": chosen}
        )
        assert settings.resolved_dialogue == chosen


def test_the_dialogue_follows_the_directory(tmp_path: Path) -> None:
    link = tmp_path / "current"
    (tmp_path / "moss-moon-003-sft-plugin").mkdir()
    link.symlink_to(tmp_path / "moss-moon-003-sft-plugin")
    assert ServeSettings(model=str(link), store=STORE).resolved_dialogue == "plugin"
    assert ServeSettings(model=str(tmp_path), store=STORE).resolved_dialogue == "plain"
    (tmp_path / "meta_instruction.txt").write_text("You are MOSS.")
    assert ServeSettings(model=str(tmp_path), store=STORE).resolved_dialogue == "plugin"


def test_a_plain_model_has_no_plugins() -> None:
    model = "fnlp/moss-moon-003-sft"
    assert ServeSettings(model=model, store=STORE).plugin_names == ()
    for fields in ({"plugins": ("calculator",)}, {"documents_dir": Path("docs")}):
        settings = ServeSettings.model_validate({"model": model, "store": STORE, **fields})
        with pytest.raises(ConfigError, match="without plugins"):
            _ = settings.plugin_names
    overridden = ServeSettings(model=model, store=STORE, plugins=("calculator",), dialogue="plugin")
    assert overridden.plugin_names == ("calculator",)


def test_the_name_in_the_api_is_the_hub_id_or_the_directory(tmp_path: Path) -> None:
    directory = tmp_path / "moss-7b"
    directory.mkdir()
    assert ServeSettings(model=str(directory), store=STORE).model_name == "moss-7b"
    hub_id = "fnlp/moss-moon-003-sft"
    assert ServeSettings(model=hub_id, store=STORE).model_name == hub_id


@pytest.mark.parametrize("field", [{"tp": 0}, {"device": "tpu"}, {"dtype": "int8"}, {"tpp": 2}])
def test_a_wrong_field_is_named_in_the_error(field: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(field))):
        ServeSettings.model_validate({"model": "m", "store": STORE, **field})


def test_the_model_has_the_names_that_are_given() -> None:
    assert ServeSettings(model="a/b", store=STORE).model_names == ("a/b",)
    settings = ServeSettings(model="a/b", store=STORE, served_model_names=("moss", "gpt-4o"))
    assert settings.model_names == ("moss", "gpt-4o")


def test_a_serve_yaml_may_set_the_digest_of_a_key() -> None:
    settings = ServeSettings(model="m", store=STORE, api_key_sha256="0" * 64)
    assert settings.requires_key
    environment = {"MOSS_API_KEY": "correct-horse"}
    from_environment = settings.with_environment(environment)
    assert from_environment.api_key_sha256 not in (None, "0" * 64) and not environment
    assert settings.with_environment({}) == settings
    for wrong in ("moss-key", "A" * 64, ""):
        with pytest.raises(ValidationError):
            ServeSettings(model="m", store=STORE, api_key_sha256=wrong)


@pytest.mark.parametrize(("value", "replicas"), [(3, Replicas(3, 3)), ("1..4", Replicas(1, 4))])
def test_a_serve_yaml_says_how_many_replicas(value: object, replicas: Replicas) -> None:
    fields = {"model": "m", "store": "redis://localhost", "replicas": value}
    assert ServeSettings.model_validate(fields).replicas == replicas


def test_a_wrong_number_of_replicas_is_named_in_the_error() -> None:
    fields = {"model": "m", "store": "redis://localhost", "replicas": "4..1"}
    with pytest.raises(ValidationError, match=r"replicas\n.*like 2 or 1\.\.4"):
        ServeSettings.model_validate(fields)
